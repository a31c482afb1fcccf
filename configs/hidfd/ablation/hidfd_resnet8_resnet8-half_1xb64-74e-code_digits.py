# Ablation of HiDFD: as in the published code, where feature integration has no effect, classes are
# never counted, and the teacher sees generated images in another range than its own.
#   python tools/train.py configs/hidfd/ablation/hidfd_resnet8_resnet8-half_1xb64-74e-code_digits.py
_base_ = '../hidfd_resnet8_resnet8-half_1xb64-74e_digits.py'

model = dict(
    feature_integration=dict(detach=True),
    smoothing=dict(interval=0, mode='effective', first_counts=512),
    synthetic_from='generator',
    synthetic_range='per_image',
    teacher_input='raw',
)
train_dataloader = dict(sampler=dict(repeat=1))
