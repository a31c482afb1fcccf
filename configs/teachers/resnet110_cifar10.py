# The teacher ResNet110, trained on the labelled images of CIFAR-10 by SLKD's recipe.
#   python tools/train.py configs/teachers/resnet110_cifar10.py
_base_ = [
    '../_base_/networks/cifar10.py',
    '../_base_/datasets/cifar10_reflect.py',
    '../_base_/schedules/slkd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.resnet110)
