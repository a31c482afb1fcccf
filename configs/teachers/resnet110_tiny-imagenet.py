# The teacher ResNet110, trained on the labelled images of Tiny-ImageNet by SLKD's recipe.
#   python tools/train.py configs/teachers/resnet110_tiny-imagenet.py
_base_ = [
    '../_base_/networks/tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet.py',
    '../_base_/schedules/slkd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='Supervised', student=_base_.networks.resnet110)
