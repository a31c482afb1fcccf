# DFND on the embedded benchmark: resnet8 teaches resnet8-half from an unlabelled glyph pool.
#   python tools/train.py configs/dfnd/dfnd_resnet8_resnet8-half_1xb128-40e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/datasets/digits_glyph-pool.py',
    '../_base_/schedules/adam_40e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='DFND', selector=dict(keep_ratio=0.9))
optim_wrapper = dict(adaptation=dict(optimizer=dict(type='Adam', lr=1e-3)))
param_scheduler = dict(adaptation=[])
