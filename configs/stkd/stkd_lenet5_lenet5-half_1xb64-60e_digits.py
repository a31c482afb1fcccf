# STKD on the digits: LeNet5 teaches LeNet5-half.
#   python tools/train.py configs/stkd/stkd_lenet5_lenet5-half_1xb64-60e_digits.py
_base_ = [
    '../_base_/models/lenet5_lenet5-half_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_sgd_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='STKD')
