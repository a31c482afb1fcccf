# STKD on CIFAR-10: ResNet110 teaches ResNet20. Not reproduced yet.
#   python tools/train.py configs/stkd/stkd_resnet110_resnet20_1xb128-300e_cifar10.py
_base_ = [
    '../_base_/models/resnet110_resnet20_cifar10.py',
    '../_base_/datasets/cifar10_reflect.py',
    '../_base_/schedules/slkd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='STKD')
