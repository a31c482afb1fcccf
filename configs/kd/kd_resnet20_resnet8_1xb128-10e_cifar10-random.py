# The control of KD³ on real images: plain KD on 80 % of the pool, drawn at random each epoch.
#   python tools/train.py configs/kd/kd_resnet20_resnet8_1xb128-10e_cifar10-random.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/datasets/cifar10_tiny-imagenet-32.py',
    '../_base_/schedules/adam_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD', alpha=1.0, selector=dict(type='RandomSelector', ratio=0.8))
