# KD with the original images and labels of CIFAR-100: ResNet34 teaches ResNet18, by the recipe of
# the teacher. Not reproduced yet.
#   python tools/train.py configs/kd/kd_resnet34_resnet18_1xb64-240e_cifar100.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD')
train_dataloader = dict(batch_size=64)
