# KD³ on Tiny-ImageNet: ResNet34 teaches ResNet18 from the images of ImageNet at 64 pixels.
# Expected: 66.24 % (Table 1), with a teacher of 66.44 %. Not reproduced yet.
#   python tools/train.py configs/kd3/kd3_resnet34_resnet18_1xb1024-240e_tiny-imagenet.py
_base_ = [
    '../_base_/models/resnet34_resnet18_tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet_imagenet-64.py',
    '../_base_/schedules/kd3_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD3')
