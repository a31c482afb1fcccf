# The baseline ResNet18, trained on the labelled images of Tiny-ImageNet as KD³'s teachers are.
# Expected: 64.87 % (KD³, Table 1, column S.). Not reproduced yet.
#   python tools/train.py configs/teachers/resnet18_tiny-imagenet.py
_base_ = [
    '../_base_/networks/tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.resnet18)
train_dataloader = dict(batch_size=64)
