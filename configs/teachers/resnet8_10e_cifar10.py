# ResNet8 on the labelled images of CIFAR-10, by a schedule for CPUs.
#   python tools/train.py configs/teachers/resnet8_10e_cifar10.py
_base_ = [
    '../_base_/networks/cifar10.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/adam_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.resnet8)
