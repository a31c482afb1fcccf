# DDAD on CIFAR-100: ResNet34 teaches ResNet18, and no image is read.
# Expected: 73.64 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 78.05 %. Not reproduced yet.
#   python tools/train.py configs/ddad/ddad_resnet34_resnet18_1xb256-500e_cifar100.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar100.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar100_latents.py',
    '../_base_/schedules/dfad_500e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DDAD', generator=_base_.generators.dfad)
