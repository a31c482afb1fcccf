# ResNet8 teaches ResNet8-half.
_base_ = '../networks/digits.py'

model = dict(
    teacher=dict(checkpoint='mmdfkd://resnet8_digits', **_base_.resnet8),
    student=_base_.resnet8_half,
)
