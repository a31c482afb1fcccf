# DFAD on the embedded benchmark: resnet8 teaches resnet8-half, and no image is read.
#   python tools/train.py configs/dfad/dfad_resnet8_resnet8-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/resnet8_resnet8-half_digits.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/adversarial_digits.py',
    '../_base_/default_runtime.py',
]

# A slow generator: a fast one soon makes nothing but the classes in which a student of this size is
# furthest from the teacher, and the student forgets the others.
model = dict(type='DFAD', generator=_base_.generators.digits_smooth)
optim_wrapper = dict(generator=dict(optimizer=dict(lr=3e-5)))
