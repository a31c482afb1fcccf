# STKD on the digits: ResNet8 teaches ResNet8-half.
#   python tools/train.py configs/stkd/stkd_resnet8_resnet8-half_1xb64-60e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_sgd_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='STKD')
