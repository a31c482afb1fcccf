# The baseline WRN-16-1, trained on the labelled images of Tiny-ImageNet as KD³'s teachers are.
#   python tools/train.py configs/teachers/wrn-16-1_tiny-imagenet.py
_base_ = [
    '../_base_/networks/tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet.py',
    '../_base_/schedules/teacher_240e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.wrn_16_1)
train_dataloader = dict(batch_size=64)
