# ZSKT on CIFAR-10 at the scale of a CPU: ResNet20 teaches ResNet8, and no image is read.
# Measured: 53.45 % (one seed) with a teacher of 85.55 %, 44 minutes on one CPU core.
#   python tools/train.py configs/zskt/zskt_resnet20_resnet8_1xb128-100e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_latents.py',
    '../_base_/schedules/zskt_200e.py',
    '../_base_/default_runtime.py',
]

# 15,000 student steps instead of 800,000, in bfloat16.
train_cfg = dict(max_epochs=100)
train_dataloader = dict(dataset=dict(length=15 * 128), batch_size=128)
optim_wrapper = dict(
    student=dict(type='AutocastOptimWrapper'),
    generator=dict(type='AutocastOptimWrapper'),
)
param_scheduler = dict(
    student=[dict(type='CosineAnnealingLR', T_max=100, by_epoch=True, convert_to_iter_based=True)],
    generator=[
        dict(type='CosineAnnealingLR', T_max=100, by_epoch=True, convert_to_iter_based=True)
    ],
)

# What leaves the three groups.
maps = dict(backbone=dict(out_indices=(0, 1, 2)))
model = dict(
    type='ZSKT',
    teacher=maps,
    student=maps,
    generator=_base_.generators.zskt,
    attention=dict(indices=(0, 1, 2)),
)
