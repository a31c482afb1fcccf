# The baseline ResNet8, trained on the labelled images of CIFAR-10 as KD³'s teachers are.
#   python tools/train.py configs/teachers/resnet8_cifar10.py
_base_ = [
    '../_base_/networks/cifar10.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.resnet8)
train_dataloader = dict(batch_size=64)
