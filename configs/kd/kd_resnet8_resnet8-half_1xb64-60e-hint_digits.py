# KD and a hint on the digits: the middle map of the student, regressed on the teacher's.
#   python tools/train.py configs/kd/kd_resnet8_resnet8-half_1xb64-60e-hint_digits.py
_base_ = './kd_resnet8_resnet8-half_1xb64-60e_digits.py'

maps = dict(backbone=dict(out_indices=(0, 1, 2)))
model = dict(
    teacher=maps,
    student=maps,
    feature_losses=dict(hint=dict(type='HintLoss', indices=[1])),
)
