# DeepInversion, adaptive, on CIFAR-10: ResNet34 teaches ResNet18, and no image is read.
# Expected: 93.26 % (as FastDFKD, arXiv 2112.06253, prints it), with a teacher of 95.70 %.
# Not reproduced yet.
# python tools/train.py configs/deepinversion/deepinversion_resnet34_resnet18_1xb256-200e_cifar10.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar10.py',
    '../_base_/datasets/cifar10_bank.py',
    '../_base_/schedules/bank_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DeepInversion')
