# CTKD with the original images and labels of CIFAR-10, at the scale of a CPU: ResNet20 and its
# untrained twin teach ResNet8.
#   python tools/train.py configs/ctkd/ctkd_resnet20_resnet8_1xb128-10e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/ctkd_10e.py',
    '../_base_/default_runtime.py',
]

maps = dict(backbone=dict(out_indices=(0, 1, 2)))
model = dict(type='CTKD', teacher=maps, student=maps, attention=dict(indices=[0, 1, 2]))
