# DeepInversion, adaptive, on CIFAR-100: ResNet34 teaches ResNet18, and no image is read.
# Expected: 61.32 % (as FastDFKD, arXiv 2112.06253, prints it), with a teacher of 78.05 %.
# Not reproduced yet.
# python tools/train.py configs/deepinversion/deepinversion_resnet34_resnet18_1xb256-200e_cifar100.py  # noqa: E501
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar100.py',
    '../_base_/datasets/cifar100_bank.py',
    '../_base_/schedules/bank_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DeepInversion')
