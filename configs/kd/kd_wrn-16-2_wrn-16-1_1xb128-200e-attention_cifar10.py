# Attention transfer alone on CIFAR-10, CE + 1000 sum AT: WRN-16-2 teaches WRN-16-1.
# Expected: 92.07 % (its paper), with a teacher of 93.69 %; student alone 91.23 %.
# Not reproduced yet.
#   python tools/train.py configs/kd/kd_wrn-16-2_wrn-16-1_1xb128-200e-attention_cifar10.py
_base_ = [
    '../_base_/models/wrn-16-2_wrn-16-1_cifar10.py',
    '../_base_/datasets/cifar10_reflect.py',
    '../_base_/schedules/wrn_200e.py',
    '../_base_/default_runtime.py',
]

maps = dict(backbone=dict(out_indices=(0, 1, 2), raw_last=True))
attention = dict(type='AttentionTransferLoss', indices=[0, 1, 2], loss_weight=1000.0)
model = dict(
    type='KD', alpha=0.0, teacher=maps, student=maps, feature_losses=dict(attention=attention)
)
