# ResNet20 teaches ResNet8. Teacher: configs/teachers/resnet20_cifar10.py.
_base_ = '../networks/cifar10.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/resnet20_cifar10/student.pth', **_base_.networks.resnet20),
    student=_base_.networks.resnet8,
)
