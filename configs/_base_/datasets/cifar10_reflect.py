# CIFAR-10 with crops out of images padded by reflection, as many codes for residual networks do.
_base_ = './cifar10.py'

data_preprocessor = dict(
    augment=[
        dict(type='BatchRandomCrop', size=32, padding=4, pad_mode='reflect'),
        dict(type='BatchRandomFlip'),
    ],
)
