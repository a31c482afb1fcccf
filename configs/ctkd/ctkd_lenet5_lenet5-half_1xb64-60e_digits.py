# CTKD on the digits: LeNet5 and its untrained twin teach LeNet5-half. Its last map is one pixel,
# where there is nothing to look at. The student's gradients are clipped: at this learning rate
# those of the attention loss make a network without BatchNorm diverge.
#   python tools/train.py configs/ctkd/ctkd_lenet5_lenet5-half_1xb64-60e_digits.py
_base_ = [
    '../_base_/models/lenet5_lenet5-half_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/ctkd_digits_60e.py',
    '../_base_/default_runtime.py',
]

maps = dict(backbone=dict(out_indices=(0, 1, 2)))
model = dict(type='CTKD', teacher=maps, student=maps, attention=dict(indices=[0, 1]))
optim_wrapper = dict(student=dict(clip_grad=dict(max_norm=1.0)))
