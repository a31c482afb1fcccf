# Ablation of KD³ (Table 2): without contrast and its perturbed passes.
# Expected: 94.48 %, the whole method 95.21 %. Not reproduced yet.
#   python tools/train.py configs/kd3/ablation/kd3_resnet34_resnet18_1xb1024-240e-no-mdcl_cifar10.py
_base_ = '../kd3_resnet34_resnet18_1xb1024-240e_cifar10.py'

model = dict(contrast=dict(loss_weight=0))
