# KD³ on CIFAR-100: ResNet34 teaches ResNet18 from the images of ImageNet at 32 pixels.
# Expected: 78.44 % (Table 1), with a teacher of 78.05 %. Not reproduced yet.
#   python tools/train.py configs/kd3/kd3_resnet34_resnet18_1xb1024-240e_cifar100.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar100.py',
    '../_base_/datasets/cifar100_imagenet-32.py',
    '../_base_/schedules/kd3_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD3')
