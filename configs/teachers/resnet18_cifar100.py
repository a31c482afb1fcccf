# The baseline ResNet18, trained on the labelled images of CIFAR-100 as KD³'s teachers are.
# Expected: 77.10 % (KD³, Table 1, column S.). Not reproduced yet.
#   python tools/train.py configs/teachers/resnet18_cifar100.py
_base_ = [
    '../_base_/networks/cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.resnet18)
train_dataloader = dict(batch_size=64)
