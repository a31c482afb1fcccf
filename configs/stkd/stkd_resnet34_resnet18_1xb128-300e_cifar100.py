# STKD on CIFAR-100: ResNet34 teaches ResNet18. Not reproduced yet.
#   python tools/train.py configs/stkd/stkd_resnet34_resnet18_1xb128-300e_cifar100.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar100.py',
    '../_base_/datasets/cifar100_reflect.py',
    '../_base_/schedules/slkd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='STKD')
