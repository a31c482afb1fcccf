# CTKD on CIFAR-10: ResNet34 and its untrained twin teach ResNet18. Not reproduced yet.
#   python tools/train.py configs/ctkd/ctkd_resnet34_resnet18_1xb128-200e_cifar10.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar10.py',
    '../_base_/datasets/cifar10_reflect.py',
    '../_base_/schedules/ctkd_200e.py',
    '../_base_/default_runtime.py',
]

maps = dict(backbone=dict(out_indices=(0, 1, 2, 3)))
model = dict(type='CTKD', teacher=maps, student=maps)
