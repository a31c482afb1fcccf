# Ablation of KD³ (Table 2): AutoAugment makes the contrasted images, not MixDistribution.
#   python tools/train.py configs/kd3/ablation/kd3_resnet20_resnet8_1xb128-10e-no-mix_cifar10.py
_base_ = '../kd3_resnet20_resnet8_1xb128-10e_cifar10.py'

model = dict(perturbation=dict(type='BatchAutoAugment'))
