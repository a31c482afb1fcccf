# KD³ on real images at the scale of a CPU: ResNet20 teaches ResNet8 from part of Tiny-ImageNet.
#   python tools/train.py configs/kd3/kd3_resnet20_resnet8_1xb128-20e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/datasets/cifar10_tiny-imagenet-32.py',
    '../_base_/schedules/sgd_20e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD3')
