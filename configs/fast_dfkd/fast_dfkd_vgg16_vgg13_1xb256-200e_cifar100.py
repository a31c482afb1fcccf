# FastDFKD on CIFAR-100: VGG16 teaches VGG13, and no image is read.
# No paper has this pair; the weights are those of VGG11. A teacher of KD³ (arXiv 2307.11469) has
# 74.53 %.
#   python tools/train.py configs/fast_dfkd/fast_dfkd_vgg16_vgg13_1xb256-200e_cifar100.py
_base_ = [
    '../_base_/models/vgg16_vgg13_cifar100.py',
    '../_base_/networks/generators.py',
    '../_base_/datasets/cifar100_bank.py',
    '../_base_/schedules/fast_dfkd_200e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='FastDFKD',
    generator=_base_.generators.dfq,
    adversarial_weight=1.0,
    class_weight=0.5,
)
