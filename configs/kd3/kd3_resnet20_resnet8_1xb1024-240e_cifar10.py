# KD³ on CIFAR-10: ResNet20 teaches ResNet8 from the images of ImageNet at 32 pixels.
# A pair that is not in the paper.
#   python tools/train.py configs/kd3/kd3_resnet20_resnet8_1xb1024-240e_cifar10.py
_base_ = [
    '../_base_/models/resnet20_resnet8_cifar10.py',
    '../_base_/datasets/cifar10_imagenet-32.py',
    '../_base_/schedules/kd3_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD3')
