# VGG16 teaches VGG13. Teacher: configs/teachers/vgg16_tiny-imagenet.py.
_base_ = '../networks/tiny-imagenet.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/vgg16_tiny-imagenet/student.pth', **_base_.networks.vgg16),
    student=_base_.networks.vgg13,
)
