# The teacher WRN-40-2, trained on the labelled images of CIFAR-100 as KD³'s teachers are.
#   python tools/train.py configs/teachers/wrn-40-2_cifar100.py
_base_ = [
    '../_base_/networks/cifar100.py',
    '../_base_/datasets/cifar100.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.wrn_40_2)
train_dataloader = dict(batch_size=64)
