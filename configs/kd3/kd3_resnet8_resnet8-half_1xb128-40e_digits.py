# KD³ on the embedded benchmark: resnet8 teaches resnet8-half from an unlabelled glyph pool.
#   python tools/train.py configs/kd3/kd3_resnet8_resnet8-half_1xb128-40e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/datasets/digits_glyph-pool.py',
    '../_base_/schedules/adam_40e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='KD3')
