# WRN-16-2 teaches WRN-16-1. Teacher: configs/teachers/wrn-16-2_cifar10.py.
_base_ = '../networks/cifar10.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/wrn-16-2_cifar10/student.pth', **_base_.networks.wrn_16_2),
    student=_base_.networks.wrn_16_1,
)
