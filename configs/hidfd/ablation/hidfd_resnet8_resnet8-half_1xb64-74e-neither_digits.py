# Ablation of HiDFD: without feature integration and category frequency smoothing.
#   python tools/train.py configs/hidfd/ablation/hidfd_resnet8_resnet8-half_1xb64-74e-neither_digits.py
_base_ = '../hidfd_resnet8_resnet8-half_1xb64-74e_digits.py'

model = dict(
    feature_integration=dict(transfer_weight=0.0, blend_weight=0.0),
    smoothing=dict(loss_weight=0.0),
)
