# Ablation of HiDFD: without category frequency smoothing.
#   python tools/train.py configs/hidfd/ablation/hidfd_resnet8_resnet8-half_1xb64-74e-no-smoothing_digits.py
_base_ = '../hidfd_resnet8_resnet8-half_1xb64-74e_digits.py'

model = dict(smoothing=dict(loss_weight=0.0))
