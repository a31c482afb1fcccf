# DFAD on the embedded benchmark, without BatchNorm: LeNet5 teaches LeNet5-half; no image is read.
#   python tools/train.py configs/dfad/dfad_lenet5_lenet5-half_1xb96-20e_digits.py
_base_ = [
    '../_base_/models/lenet5_lenet5-half_digits.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/digits_latents.py',
    '../_base_/schedules/adversarial_digits.py',
    '../_base_/default_runtime.py',
]

# Smooth images and a slow generator, as for ResNet8; the student's learning rate is that of the
# paper's MNIST experiment, whose networks are without BatchNorm too.
model = dict(type='DFAD', generator=_base_.generators.digits_smooth)
optim_wrapper = dict(student=dict(optimizer=dict(lr=0.01)), generator=dict(optimizer=dict(lr=3e-5)))
