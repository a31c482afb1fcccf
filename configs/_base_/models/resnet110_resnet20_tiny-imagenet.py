# ResNet110 teaches ResNet20. Teacher: configs/teachers/resnet110_tiny-imagenet.py.
_base_ = '../networks/tiny-imagenet.py'

model = dict(
    teacher=dict(
        checkpoint='work_dirs/resnet110_tiny-imagenet/student.pth', **_base_.networks.resnet110
    ),
    student=_base_.networks.resnet20,
)
