# Ablation of KD³ (Table 2): AutoAugment makes the contrasted images, not MixDistribution.
# Expected: 94.61 %, the whole method 95.21 %. Not reproduced yet.
#   python tools/train.py configs/kd3/ablation/kd3_resnet34_resnet18_1xb1024-240e-no-mix_cifar10.py
_base_ = '../kd3_resnet34_resnet18_1xb1024-240e_cifar10.py'

model = dict(perturbation=dict(type='BatchAutoAugment'))
