# DeepInversion, adaptive, on CIFAR-10: VGG16 teaches VGG13, and no image is read.
# Expected: 85.27 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 94.07 %.
# Not reproduced yet.
# python tools/train.py configs/deepinversion/deepinversion_vgg16_vgg13_1xb256-200e_cifar10.py
_base_ = [
    '../_base_/models/vgg16_vgg13_cifar10.py',
    '../_base_/datasets/cifar10_bank.py',
    '../_base_/schedules/bank_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DeepInversion')
