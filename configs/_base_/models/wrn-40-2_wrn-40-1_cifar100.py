# WRN-40-2 teaches WRN-40-1. Teacher: configs/teachers/wrn-40-2_cifar100.py.
_base_ = '../networks/cifar100.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/wrn-40-2_cifar100/student.pth', **_base_.networks.wrn_40_2),
    student=_base_.networks.wrn_40_1,
)
