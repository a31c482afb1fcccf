# CTKD on CIFAR-10: WRN-40-2 and its untrained twin teach WRN-16-2. Not reproduced yet.
#   python tools/train.py configs/ctkd/ctkd_wrn-40-2_wrn-16-2_1xb128-200e_cifar10.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-16-2_cifar10.py',
    '../_base_/datasets/cifar10_reflect.py',
    '../_base_/schedules/ctkd_200e.py',
    '../_base_/default_runtime.py',
]

maps = dict(backbone=dict(out_indices=(0, 1, 2), raw_last=True))  # sums, before the last ReLU
model = dict(type='CTKD', teacher=maps, student=maps, attention=dict(indices=[0, 1, 2]))
