# ResNet34 teaches ResNet18. Teacher: configs/teachers/resnet34_cifar100.py.
_base_ = '../networks/cifar100.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/resnet34_cifar100/student.pth', **_base_.networks.resnet34),
    student=_base_.networks.resnet18,
)
