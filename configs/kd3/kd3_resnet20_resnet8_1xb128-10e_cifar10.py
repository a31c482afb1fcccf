# KD³ on real images at the scale of a CPU: ResNet20 teaches ResNet8 from part of Tiny-ImageNet.
#   python tools/train.py configs/kd3/kd3_resnet20_resnet8_1xb128-10e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/datasets/cifar10_tiny-imagenet-32.py',
    '../_base_/schedules/adam_10e.py',
    '../_base_/default_runtime.py',
]

# The teacher's contrastive term trains nothing that is kept, see KD3; without it a step is a fifth
# cheaper.
model = dict(type='KD3', teacher_term=False)
