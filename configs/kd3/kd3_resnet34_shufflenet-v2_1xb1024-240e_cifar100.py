# KD³ on CIFAR-100: ResNet34 teaches ShuffleNetV2 from the images of ImageNet at 32 pixels.
# Of the paper's Table 3, whose numbers are not legible to us.
#   python tools/train.py configs/kd3/kd3_resnet34_shufflenet-v2_1xb1024-240e_cifar100.py
_base_ = [
    '../_base_/models/resnet34_shufflenet-v2_cifar100.py',
    '../_base_/datasets/cifar100_imagenet-32.py',
    '../_base_/schedules/kd3_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD3')

optim_wrapper = dict(student=dict(optimizer=dict(lr=0.01)))  # as for teachers of this kind
