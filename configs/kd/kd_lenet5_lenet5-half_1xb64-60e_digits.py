# KD with the original images and labels of the digits: LeNet5 teaches LeNet5-half. Gradients are
# clipped: at this learning rate those of T^2 KL make a network without BatchNorm diverge.
#   python tools/train.py configs/kd/kd_lenet5_lenet5-half_1xb64-60e_digits.py
_base_ = [
    '../_base_/models/lenet5_lenet5-half_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_sgd_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD')
optim_wrapper = dict(student=dict(clip_grad=dict(max_norm=5.0)))
