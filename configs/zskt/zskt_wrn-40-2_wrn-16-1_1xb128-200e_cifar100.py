# ZSKT on CIFAR-100: WRN-40-2 teaches WRN-16-1, and no image is read.
# FastDFKD (arXiv 2112.06253) prints 36.66 %, of its own form of ZSKT, with a teacher of 75.83 %.
# Not reproduced yet.
#   python tools/train.py configs/zskt/zskt_wrn-40-2_wrn-16-1_1xb128-200e_cifar100.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-16-1_cifar100.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar100_latents.py',
    '../_base_/schedules/zskt_200e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=400 * 128), batch_size=128)

# What leaves the three groups, ahead of the last BatchNorm.
maps = dict(backbone=dict(out_indices=(0, 1, 2), raw_last=True))
model = dict(
    type='ZSKT',
    teacher=maps,
    student=maps,
    generator=_base_.generators.zskt,
    attention=dict(indices=(0, 1, 2)),
)
