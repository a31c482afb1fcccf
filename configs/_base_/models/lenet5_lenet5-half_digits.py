# LeNet5 teaches LeNet5-half.
_base_ = '../networks/digits.py'

model = dict(
    teacher=dict(checkpoint='mmdfkd://lenet5_digits', **_base_.lenet5),
    student=_base_.lenet5_half,
)
