# HiDFD on the embedded benchmark, both stages in one run: lenet5 teaches lenet5-half from 240
# images of the glyph pool and 1,500 of a GAN.
#   python tools/train.py configs/hidfd/hidfd_lenet5_lenet5-half_1xb64-74e_digits.py
_base_ = [
    '../_base_/models/lenet5_lenet5-half_digits.py',
    '../_base_/datasets/digits_hybrid.py',
    '../_base_/schedules/hidfd_digits.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='HiDFD',
    gan_epochs=10,
    num_synthetic=1500,
    selector=dict(num_select=240, class_cap='even'),
    generator=dict(latent_size=64, width=8),
    discriminator=dict(width=8),
    smoothing=dict(interval=100),
    average=dict(decay=0.995, start=100),
)
