# WRN-40-1 teaches WRN-16-1. Teacher: configs/teachers/wrn-40-1_cifar10.py.
_base_ = '../networks/cifar10.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/wrn-40-1_cifar10/student.pth', **_base_.networks.wrn_40_1),
    student=_base_.networks.wrn_16_1,
)
