# HiDFD on the embedded benchmark, second stage: the student, from the same 240 collected images and
# what the first stage made, hidfd_resnet8_resnet8-half_1xb64-10e-gan_digits.py.
#   python tools/train.py configs/hidfd/hidfd_resnet8_resnet8-half_1xb64-64e-student_digits.py
_base_ = './hidfd_resnet8_resnet8-half_1xb64-74e_digits.py'

model = dict(gan_epochs=0)
train_dataloader = dict(
    dataset=dict(
        synthetic=dict(
            type='ImagePool',
            root='work_dirs/hidfd_resnet8_resnet8-half_1xb64-10e-gan_digits/bank',
        )
    )
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[40, 48, 56], gamma=0.1, by_epoch=True)]
)
train_cfg = dict(max_epochs=64, val_begin=1)
