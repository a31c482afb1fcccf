# VGG16 teaches VGG13. Teacher: configs/teachers/vgg16_cifar100.py.
_base_ = '../networks/cifar100.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/vgg16_cifar100/student.pth', **_base_.networks.vgg16),
    student=_base_.networks.vgg13,
)
