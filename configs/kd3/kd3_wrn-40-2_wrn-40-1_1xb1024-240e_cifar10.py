# KD³ on CIFAR-10: WRN-40-2 teaches WRN-40-1 from the images of ImageNet at 32 pixels.
# Perhaps a pair of the paper's Table 3, which is not legible to us.
#   python tools/train.py configs/kd3/kd3_wrn-40-2_wrn-40-1_1xb1024-240e_cifar10.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-40-1_cifar10.py',
    '../_base_/datasets/cifar10_imagenet-32.py',
    '../_base_/schedules/kd3_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD3')
