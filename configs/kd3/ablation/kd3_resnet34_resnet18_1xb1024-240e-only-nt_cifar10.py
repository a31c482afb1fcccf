# Ablation of KD³ (Table 2): the teacher alone selects (only N_T).
# Expected: 94.01 %, the whole method 95.21 %. Not reproduced yet.
#   python tools/train.py configs/kd3/ablation/kd3_resnet34_resnet18_1xb1024-240e-only-nt_cifar10.py
_base_ = '../kd3_resnet34_resnet18_1xb1024-240e_cifar10.py'

model = dict(selector=dict(teacher_weight=1))
