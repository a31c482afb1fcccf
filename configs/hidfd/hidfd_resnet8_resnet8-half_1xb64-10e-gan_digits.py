# HiDFD on the embedded benchmark, first stage: the GAN, which leaves 1,500 images in the work
# directory's bank. The second stage: hidfd_resnet8_resnet8-half_1xb64-64e-student_digits.py.
#   python tools/train.py configs/hidfd/hidfd_resnet8_resnet8-half_1xb64-10e-gan_digits.py
_base_ = './hidfd_resnet8_resnet8-half_1xb64-74e_digits.py'

param_scheduler = dict(_delete_=True)
train_cfg = dict(max_epochs=10)
val_dataloader = val_cfg = val_evaluator = None
