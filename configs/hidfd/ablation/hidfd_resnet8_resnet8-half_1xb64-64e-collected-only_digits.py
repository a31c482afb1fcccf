# Ablation of HiDFD: the student learns from the 240 collected images alone, in about as many steps.
#   python tools/train.py configs/hidfd/ablation/hidfd_resnet8_resnet8-half_1xb64-64e-collected-only_digits.py
_base_ = '../hidfd_resnet8_resnet8-half_1xb64-64e-student_digits.py'

train_dataloader = dict(dataset=dict(synthetic=None), sampler=dict(repeat=12))
