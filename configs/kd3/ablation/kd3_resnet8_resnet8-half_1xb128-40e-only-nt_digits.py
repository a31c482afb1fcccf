# Ablation of KD³ (Table 2): the teacher alone selects (only N_T).
#   python tools/train.py configs/kd3/ablation/kd3_resnet8_resnet8-half_1xb128-40e-only-nt_digits.py
_base_ = '../kd3_resnet8_resnet8-half_1xb128-40e_digits.py'

model = dict(selector=dict(teacher_weight=1))
