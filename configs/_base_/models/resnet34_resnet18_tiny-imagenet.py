# ResNet34 teaches ResNet18. Teacher: configs/teachers/resnet34_tiny-imagenet.py.
_base_ = '../networks/tiny-imagenet.py'

model = dict(
    teacher=dict(
        checkpoint='work_dirs/resnet34_tiny-imagenet/student.pth', **_base_.networks.resnet34
    ),
    student=_base_.networks.resnet18,
)
