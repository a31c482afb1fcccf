# WRN-40-2 teaches WRN-16-2. Teacher: configs/teachers/wrn-40-2_cifar10.py.
_base_ = '../networks/cifar10.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/wrn-40-2_cifar10/student.pth', **_base_.networks.wrn_40_2),
    student=_base_.networks.wrn_16_2,
)
