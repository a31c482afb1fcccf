# DAFL on CIFAR-10 at the scale of a CPU: ResNet20 teaches ResNet8, and no image is read.
# Measured: 43.75 % (one seed) with a teacher of 85.55 %, two hours on one CPU core.
#   python tools/train.py configs/dafl/dafl_resnet20_resnet8_1xb128-100e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_latents.py',
    '../_base_/schedules/dafl_2000e.py',
    '../_base_/default_runtime.py',
]

# 15,000 steps instead of 240,000, in bfloat16. Batches are an eighth as large; the student's
# learning rate is that of the other methods at this scale, the generator's is divided by √8.
train_cfg = dict(max_epochs=100)
train_dataloader = dict(dataset=dict(length=150 * 128), batch_size=128)
optim_wrapper = dict(
    student=dict(type='AutocastOptimWrapper', optimizer=dict(lr=0.05)),
    generator=dict(type='AutocastOptimWrapper', optimizer=dict(lr=7e-3)),
)
param_scheduler = dict(
    student=[dict(type='MultiStepLR', milestones=[40, 80], gamma=0.1, by_epoch=True)]
)
auto_scale_lr = dict(base_batch_size=128)

model = dict(
    type='DAFL',
    generator=_base_.generators.dafl,
    one_hot=dict(loss_weight=0.05),
    activation=dict(loss_weight=0.01),
)
