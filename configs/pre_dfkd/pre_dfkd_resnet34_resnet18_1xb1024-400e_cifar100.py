# PRE-DFKD on CIFAR-100: ResNet34 teaches ResNet18, and no image is read.
# Expected: 74.19 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 78.05 %. Not reproduced yet.
# Over all epochs the paper's mean is 70.2 %.
#   python tools/train.py configs/pre_dfkd/pre_dfkd_resnet34_resnet18_1xb1024-400e_cifar100.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar100.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar100_latents.py',
    '../_base_/schedules/pre_dfkd_400e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=36 * 1024), batch_size=1024)

model = dict(type='PREDFKD', generator=_base_.generators.pre, memory=_base_.generators.pre_memory)
