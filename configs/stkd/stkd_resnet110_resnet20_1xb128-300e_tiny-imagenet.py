# STKD on Tiny-ImageNet: ResNet110 teaches ResNet20. Not reproduced yet.
#   python tools/train.py configs/stkd/stkd_resnet110_resnet20_1xb128-300e_tiny-imagenet.py
_base_ = [
    '../_base_/models/resnet110_resnet20_tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet.py',
    '../_base_/schedules/slkd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(type='STKD')
data_preprocessor = dict(
    augment=[dict(type='BatchRandomCrop', size=64, padding=8), dict(type='BatchRandomFlip')],
)
