# The baseline VGG13, trained on the labelled images of CIFAR-10 as KD³'s teachers are.
# Expected: 92.69 % (KD³, Table 1, column S.). Not reproduced yet.
#   python tools/train.py configs/teachers/vgg13_cifar10.py
_base_ = [
    '../_base_/networks/cifar10.py',
    '../_base_/datasets/cifar10.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.vgg13)
train_dataloader = dict(batch_size=64)
