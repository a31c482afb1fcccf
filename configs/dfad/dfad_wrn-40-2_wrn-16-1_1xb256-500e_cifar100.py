# DFAD on CIFAR-100: WRN-40-2 teaches WRN-16-1, and no image is read.
# A pair that is not in the paper.
#   python tools/train.py configs/dfad/dfad_wrn-40-2_wrn-16-1_1xb256-500e_cifar100.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-16-1_cifar100.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar100_latents.py',
    '../_base_/schedules/dfad_500e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DFAD', generator=_base_.generators.dfad)
