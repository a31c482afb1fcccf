# Ablation of KD³ (Table 2): without contrast and its perturbed passes.
#   python tools/train.py configs/kd3/ablation/kd3_resnet8_resnet8-half_1xb128-40e-no-mdcl_digits.py
_base_ = '../kd3_resnet8_resnet8-half_1xb128-40e_digits.py'

model = dict(contrast=dict(loss_weight=0))
