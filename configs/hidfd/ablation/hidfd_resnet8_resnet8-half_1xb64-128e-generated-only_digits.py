# Ablation of HiDFD: the student learns from the generated images alone, in about as many steps.
#   python tools/train.py configs/hidfd/ablation/hidfd_resnet8_resnet8-half_1xb64-128e-generated-only_digits.py
_base_ = '../hidfd_resnet8_resnet8-half_1xb64-64e-student_digits.py'

train_dataloader = dict(sampler=dict(repeat=0))
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[80, 96, 112], gamma=0.1, by_epoch=True)]
)
train_cfg = dict(max_epochs=128)
