# Ablation of KD³ (Table 2): without contrast and its perturbed passes.
#   python tools/train.py configs/kd3/ablation/kd3_resnet20_resnet8_1xb128-10e-no-mdcl_cifar10.py
_base_ = '../kd3_resnet20_resnet8_1xb128-10e_cifar10.py'

model = dict(contrast=dict(loss_weight=0))
