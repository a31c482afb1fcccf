# KD³ on MNIST: LeNet5 teaches LeNet5-half from MNIST-M and SVHN in grey.
# Of the paper's Table 1, whose MNIST row is not legible to us. Batch size, augmentation: ours.
#   python tools/train.py configs/kd3/kd3_lenet5_lenet5-half_1xb128-40e_mnist.py
_base_ = [
    '../_base_/models/lenet5_lenet5-half_mnist.py',
    '../_base_/datasets/mnist_mnist-m-svhn.py',
    '../_base_/schedules/mnist_adam_40e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD3')
