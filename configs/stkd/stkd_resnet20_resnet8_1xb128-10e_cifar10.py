# STKD with the original images of CIFAR-10, at the scale of a CPU.
#   python tools/train.py configs/stkd/stkd_resnet20_resnet8_1xb128-10e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/adam_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='STKD')
