# DFND on real images at the scale of a CPU: ResNet20 teaches ResNet8 from part of Tiny-ImageNet.
#   python tools/train.py configs/dfnd/dfnd_resnet20_resnet8_1xb128-10e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/datasets/cifar10_tiny-imagenet-32.py',
    '../_base_/schedules/adam_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='DFND',
    selector=dict(keep_ratio=0.5),
    teacher_accuracy=0.8499,  # of our run, seed 0; None: of your teacher's file
)
optim_wrapper = dict(adaptation=dict(optimizer=dict(type='Adam', lr=1e-3)))
param_scheduler = dict(adaptation=[])
