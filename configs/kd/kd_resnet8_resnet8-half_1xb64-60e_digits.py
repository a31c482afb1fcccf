# KD with the original images and labels of the digits: ResNet8 teaches ResNet8-half.
#   python tools/train.py configs/kd/kd_resnet8_resnet8-half_1xb64-60e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_sgd_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD')
