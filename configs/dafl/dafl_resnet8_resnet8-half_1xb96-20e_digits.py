# DAFL on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
#   python tools/train.py configs/dafl/dafl_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/adversarial_digits.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(generator=dict(optimizer=dict(lr=0.02)))

model = dict(
    type='DAFL',
    generator=dict(latent_size=64, widths=(64, 32, 8)),
    student_steps=5,
    temperature=4.0,
)
