# KD and attention transfer on the digits: where the teacher looks, too.
#   python tools/train.py configs/kd/kd_resnet8_resnet8-half_1xb64-60e-attention_digits.py
_base_ = './kd_resnet8_resnet8-half_1xb64-60e_digits.py'

maps = dict(backbone=dict(out_indices=(0, 1, 2)))
model = dict(
    teacher=maps,
    student=maps,
    feature_losses=dict(attention=dict(type='AttentionTransferLoss', loss_weight=100.0)),
)
