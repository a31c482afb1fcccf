# LeNet5 teaches LeNet5-half. Teacher: configs/teachers/lenet5_mnist.py.
_base_ = '../networks/mnist.py'

model = dict(
    teacher=dict(checkpoint='work_dirs/lenet5_mnist/student.pth', **_base_.networks.lenet5),
    student=_base_.networks.lenet5_half,
)
