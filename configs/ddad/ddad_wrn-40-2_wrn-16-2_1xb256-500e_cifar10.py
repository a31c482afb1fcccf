# DDAD on CIFAR-10: WRN-40-2 teaches WRN-16-2, and no image is read.
# A pair that is not in the paper.
#   python tools/train.py configs/ddad/ddad_wrn-40-2_wrn-16-2_1xb256-500e_cifar10.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-16-2_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_latents.py',
    '../_base_/schedules/dfad_500e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DDAD', generator=_base_.generators.dfad)
