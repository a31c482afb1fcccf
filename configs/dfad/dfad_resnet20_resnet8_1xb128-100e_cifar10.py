# DFAD on CIFAR-10 at the scale of a CPU: ResNet20 teaches ResNet8, and no image is read.
# Measured: 54.43 % (one seed) with a teacher of 85.55 %, an hour and a half on one CPU core.
#   python tools/train.py configs/dfad/dfad_resnet20_resnet8_1xb128-100e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_latents.py',
    '../_base_/schedules/dfad_100e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=30 * 128), batch_size=128)

model = dict(type='DFAD', generator=_base_.generators.dfad)
