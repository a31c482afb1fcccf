# Ablation of KD³ (Table 2): the teacher alone selects (only N_T).
#   python tools/train.py configs/kd3/ablation/kd3_resnet20_resnet8_1xb128-10e-only-nt_cifar10.py
_base_ = '../kd3_resnet20_resnet8_1xb128-10e_cifar10.py'

model = dict(selector=dict(teacher_weight=1))
