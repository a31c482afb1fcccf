# The teacher ResNet110, trained on the labelled images of CIFAR-100 by SLKD's recipe.
#   python tools/train.py configs/teachers/resnet110_cifar100.py
_base_ = [
    '../_base_/networks/cifar100.py',
    '../_base_/datasets/cifar100_reflect.py',
    '../_base_/schedules/slkd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.resnet110)
