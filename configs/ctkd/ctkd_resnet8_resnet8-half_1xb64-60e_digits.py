# CTKD on the digits: ResNet8 and its untrained twin teach ResNet8-half. Attention weighs less than
# for 32-pixel maps: its loss is a mean over maps of 16, 8 and 4 pixels here.
#   python tools/train.py configs/ctkd/ctkd_resnet8_resnet8-half_1xb64-60e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/ctkd_digits_60e.py',
    '../_base_/default_runtime.py',
]

maps = dict(backbone=dict(out_indices=(0, 1, 2)))
model = dict(type='CTKD', teacher=maps, student=maps, attention=dict(loss_weight=100.0))
