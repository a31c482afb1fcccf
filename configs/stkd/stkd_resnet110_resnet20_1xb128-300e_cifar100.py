# STKD on CIFAR-100: ResNet110 teaches ResNet20. Not reproduced yet.
#   python tools/train.py configs/stkd/stkd_resnet110_resnet20_1xb128-300e_cifar100.py
_base_ = [
    '../_base_/models/resnet110_resnet20_cifar100.py',
    '../_base_/datasets/cifar100_reflect.py',
    '../_base_/schedules/slkd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='STKD')
