# HiDFD on the embedded benchmark, both stages in one run: resnet8 teaches resnet8-half from 240
# images of the glyph pool and 1,500 of a GAN.
#   python tools/train.py configs/hidfd/hidfd_resnet8_resnet8-half_1xb64-74e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/datasets/digits_hybrid.py',
    '../_base_/schedules/hidfd_digits.py',
    '../_base_/default_runtime.py',
]

model = dict(type='HiDFD', **_base_.small_gan)
