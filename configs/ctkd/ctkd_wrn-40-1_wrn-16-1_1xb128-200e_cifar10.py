# CTKD on CIFAR-10: WRN-40-1 and its untrained twin teach WRN-16-1. Not reproduced yet.
#   python tools/train.py configs/ctkd/ctkd_wrn-40-1_wrn-16-1_1xb128-200e_cifar10.py
_base_ = [
    '../_base_/models/wrn-40-1_wrn-16-1_cifar10.py',
    '../_base_/datasets/cifar10_reflect.py',
    '../_base_/schedules/ctkd_200e.py',
    '../_base_/default_runtime.py',
]

maps = dict(backbone=dict(out_indices=(0, 1, 2), raw_last=True))  # sums, before the last ReLU
model = dict(type='CTKD', teacher=maps, student=maps, attention=dict(indices=[0, 1, 2]))
