# Tiny-ImageNet-200: 100,000 images of 64 pixels to train on, 10,000 to validate on, 200 classes.
# Into data/tiny-imagenet: tiny-imagenet-200.zip as published, or its folder tiny-imagenet-200.
_base_ = './cifar10.py'

train_dataloader = dict(
    dataset=dict(type='TinyImageNet', data_root='data/tiny-imagenet', split='train'),
)
val_dataloader = dict(
    dataset=dict(type='TinyImageNet', data_root='data/tiny-imagenet', split='val'),
)
test_dataloader = dict(
    dataset=dict(type='TinyImageNet', data_root='data/tiny-imagenet', split='test'),
)

data_preprocessor = dict(
    augment=[dict(type='BatchRandomCrop', size=64, padding=4), dict(type='BatchRandomFlip')],
)
