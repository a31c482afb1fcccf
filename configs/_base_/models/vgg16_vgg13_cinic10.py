# VGG16 teaches VGG13. Teacher: configs/teachers/vgg16_cinic10.py.
_base_ = '../networks/cinic10.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/vgg16_cinic10/student.pth', **_base_.networks.vgg16),
    student=_base_.networks.vgg13,
)
