# Ablation of KD³ (Table 2): the student alone selects (only N_S).
# Expected: 91.99 %, the whole method 95.21 %. Not reproduced yet.
#   python tools/train.py configs/kd3/ablation/kd3_resnet34_resnet18_1xb1024-240e-only-ns_cifar10.py
_base_ = '../kd3_resnet34_resnet18_1xb1024-240e_cifar10.py'

model = dict(selector=dict(teacher_weight=0))
