# The teacher LeNet5, trained on the labelled images of MNIST.
#   python tools/train.py configs/teachers/lenet5_mnist.py
_base_ = [
    '../_base_/networks/mnist.py',
    '../_base_/datasets/mnist.py',
    '../_base_/schedules/mnist_adam_40e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.lenet5)
