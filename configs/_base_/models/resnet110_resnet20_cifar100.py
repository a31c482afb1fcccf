# ResNet110 teaches ResNet20. Teacher: configs/teachers/resnet110_cifar100.py.
_base_ = '../networks/cifar100.py'

model = dict(
    teacher=dict(
        checkpoint='work_dirs/resnet110_cifar100/student.pth', **_base_.networks.resnet110
    ),
    student=_base_.networks.resnet20,
)
