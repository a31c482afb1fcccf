# DAFL on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
#   python tools/train.py configs/dafl/dafl_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/adversarial_digits.py',
    '../_base_/default_runtime.py',
]

# Half as many iterations as the others: the class balance soon sees to images of all classes.
train_dataloader = dict(dataset=dict(length=25 * 96))
optim_wrapper = dict(generator=dict(optimizer=dict(lr=5e-3)))

model = dict(
    type='DAFL',
    generator=dict(latent_size=64, widths=(64, 32, 32), enlarge=2),
    student_steps=5,
    temperature=4.0,
)
