# ResNet34 teaches ShuffleNetV1. Teacher: configs/teachers/resnet34_cifar100.py.
_base_ = '../networks/cifar100.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/resnet34_cifar100/student.pth', **_base_.networks.resnet34),
    student=_base_.networks.shufflenet_v1,
)
