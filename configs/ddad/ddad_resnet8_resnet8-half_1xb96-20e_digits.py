# DDAD on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
#   python tools/train.py configs/ddad/ddad_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/adversarial_digits.py',
    '../_base_/default_runtime.py',
]

# The statistics lead the way: half as many iterations as DFAD's will do.
train_dataloader = dict(dataset=dict(length=25 * 96))

model = dict(type='DDAD', generator=_base_.generators.digits)
