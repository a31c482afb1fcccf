# DFQ on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
#   python tools/train.py configs/dfq/dfq_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/adversarial_digits.py',
    '../_base_/default_runtime.py',
]

# Half as many iterations as the others, since each has twice as many student steps.
train_dataloader = dict(dataset=dict(length=25 * 96))
optim_wrapper = dict(generator=dict(optimizer=dict(betas=(0.5, 0.999))))

model = dict(type='DFQ', generator=_base_.generators.digits_sigmoid)
