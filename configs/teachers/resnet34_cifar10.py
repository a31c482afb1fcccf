# The teacher ResNet34, trained on the labelled images of CIFAR-10 as KD³'s teachers are.
# Expected: 95.70 % (KD³, Table 1, column T.). Not reproduced yet.
#   python tools/train.py configs/teachers/resnet34_cifar10.py
_base_ = [
    '../_base_/networks/cifar10.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.resnet34)
train_dataloader = dict(batch_size=64)
