# Ablation of KD³ (Table 2): AutoAugment makes the contrasted images, not MixDistribution.
#   python tools/train.py configs/kd3/ablation/kd3_resnet8_resnet8-half_1xb128-40e-no-mix_digits.py
_base_ = '../kd3_resnet8_resnet8-half_1xb128-40e_digits.py'

model = dict(perturbation=dict(type='BatchAutoAugment'))
