# WRN-40-1 teaches WRN-16-1. Teacher: configs/teachers/wrn-40-1_cifar100.py.
_base_ = '../networks/cifar100.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/wrn-40-1_cifar100/student.pth', **_base_.networks.wrn_40_1),
    student=_base_.networks.wrn_16_1,
)
