# DAFL on the embedded benchmark: LeNet5 teaches LeNet5-half, and no image is read.
#   python tools/train.py configs/dafl/dafl_lenet5_lenet5-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/lenet5_lenet5-half_digits.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/adversarial_digits.py',
    '../_base_/default_runtime.py',
]

# The paper's optimiser for this pair, which has no BatchNorm.
optim_wrapper = dict(
    student=dict(optimizer=dict(_delete_=True, type='Adam', lr=2e-3)),
    generator=dict(optimizer=dict(lr=0.02)),
)

model = dict(
    type='DAFL',
    generator=dict(latent_size=64, widths=(64, 32, 8)),
    student_steps=5,
    temperature=4.0,
)
