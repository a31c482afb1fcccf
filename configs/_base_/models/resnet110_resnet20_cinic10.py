# ResNet110 teaches ResNet20. Teacher: configs/teachers/resnet110_cinic10.py.
_base_ = '../networks/cinic10.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/resnet110_cinic10/student.pth', **_base_.networks.resnet110),
    student=_base_.networks.resnet20,
)
