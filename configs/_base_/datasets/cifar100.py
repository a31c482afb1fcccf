# CIFAR-100: 50,000 images to train on, 10,000 to test on, 100 classes.
# Into data/cifar100: cifar-100-python.tar.gz as published, or its folder cifar-100-python.
_base_ = './cifar10.py'

train_dataloader = dict(
    dataset=dict(type='CIFAR100', data_root='data/cifar100', split='train'),
)
val_dataloader = dict(
    dataset=dict(type='CIFAR100', data_root='data/cifar100', split='test'),
)
test_dataloader = dict(
    dataset=dict(type='CIFAR100', data_root='data/cifar100', split='test'),
)
