# PRE-DFKD on CIFAR-10: ResNet34 teaches ResNet18, and no image is read.
# Expected: 93.25 % (KD³, arXiv 2307.11469, Table 1), with a teacher of 95.70 %. Not reproduced yet.
#   python tools/train.py configs/pre_dfkd/pre_dfkd_resnet34_resnet18_1xb1024-400e_cifar10.py
_base_ = [
    '../_base_/models/resnet34_resnet18_cifar10.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar10_latents.py',
    '../_base_/schedules/pre_dfkd_400e.py',
    '../_base_/default_runtime.py',
]

train_dataloader = dict(dataset=dict(length=36 * 1024), batch_size=1024)

model = dict(type='PREDFKD', generator=_base_.generators.pre, memory=_base_.generators.pre_memory)
