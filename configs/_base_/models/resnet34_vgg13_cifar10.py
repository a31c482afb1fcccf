# ResNet34 teaches VGG13. Teacher: configs/teachers/resnet34_cifar10.py.
_base_ = '../networks/cifar10.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/resnet34_cifar10/student.pth', **_base_.networks.resnet34),
    student=_base_.networks.vgg13,
)
