# The baseline VGG13, trained on the labelled images of Tiny-ImageNet as KD³'s teachers are.
# Expected: 61.55 % (KD³, Table 1, column S.). Not reproduced yet.
#   python tools/train.py configs/teachers/vgg13_tiny-imagenet.py
_base_ = [
    '../_base_/networks/tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.vgg13)
train_dataloader = dict(batch_size=64)
