# The baseline ResNet8-half, trained on the labelled digits. 2 CPU cores, under a minute:
#   python tools/train.py configs/teachers/resnet8-half_digits.py
_base_ = [
    '../_base_/networks/digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_sgd_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.resnet8_half)
