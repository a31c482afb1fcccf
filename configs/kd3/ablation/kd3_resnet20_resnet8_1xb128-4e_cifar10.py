# KD³ on real images in a few minutes on a CPU: a fifth of Tiny-ImageNet, four epochs. What the rows
# of its ablation beside this file are compared with.
#   python tools/train.py configs/kd3/ablation/kd3_resnet20_resnet8_1xb128-4e_cifar10.py
_base_ = '../kd3_resnet20_resnet8_1xb128-10e_cifar10.py'

train_dataloader = dict(dataset=dict(ratio=0.2))
param_scheduler = dict(
    student=[dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, convert_to_iter_based=True)]
)
train_cfg = dict(max_epochs=4)
