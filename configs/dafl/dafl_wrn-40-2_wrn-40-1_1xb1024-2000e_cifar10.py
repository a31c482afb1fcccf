# DAFL on CIFAR-10: WRN-40-2 teaches WRN-40-1, and no image is read.
# A pair that is not in the paper.
#   python tools/train.py configs/dafl/dafl_wrn-40-2_wrn-40-1_1xb1024-2000e_cifar10.py
_base_ = [
    '../_base_/models/wrn-40-2_wrn-40-1_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_latents.py',
    '../_base_/schedules/dafl_2000e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=120 * 1024), batch_size=1024)

model = dict(
    type='DAFL',
    generator=_base_.generators.dafl,
    one_hot=dict(loss_weight=0.05),
    activation=dict(loss_weight=0.01),
)
