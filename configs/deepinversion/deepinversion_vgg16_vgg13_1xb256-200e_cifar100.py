# DeepInversion, adaptive, on CIFAR-100: VGG16 teaches VGG13, and no image is read.
# Expected: 60.00 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 74.53 %.
# Not reproduced yet.
# python tools/train.py configs/deepinversion/deepinversion_vgg16_vgg13_1xb256-200e_cifar100.py
_base_ = [
    '../_base_/models/vgg16_vgg13_cifar100.py',
    '../_base_/datasets/cifar100_bank.py',
    '../_base_/schedules/bank_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DeepInversion')
