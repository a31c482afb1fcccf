# KD³ on CINIC-10: ResNet34 teaches ResNet18 from the images of ImageNet at 32 pixels.
# Expected: 86.55 % (Table 1), with a teacher of 86.62 %. Not reproduced yet.
#   python tools/train.py configs/kd3/kd3_resnet34_resnet18_1xb1024-240e_cinic10.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cinic10.py',
    '../_base_/datasets/cinic10_imagenet-32.py',
    '../_base_/schedules/kd3_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD3')
