# PRE-DFKD on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
#   python tools/train.py configs/pre_dfkd/pre_dfkd_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/adversarial_digits.py',
    '../_base_/default_runtime.py',
]

# Half as many iterations as the others, since each also has steps of the auto-encoder.
train_dataloader = dict(dataset=dict(length=25 * 96))
optim_wrapper = dict(
    generator=dict(optimizer=dict(lr=0.02)), memory=dict(optimizer=dict(type='Adam', lr=5e-3))
)

model = dict(
    type='PREDFKD',
    generator=dict(spectral_norm=True, **_base_.generators.digits),
    memory=_base_.generators.digits,
    encoder=dict(widths=(8, 16, 16), init_range=None),
    student_steps=5,
    memory_steps=2,
)
