# CIFAR-100 to test on; to train on, the pool of cifar10_imagenet-32.py.
_base_ = './cifar100.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImagePool', root='data/pools/imagenet-32'),
    batch_size=1024,
)
data_preprocessor = dict(
    augment=[dict(type='BatchRandomResizedCrop', size=32), dict(type='BatchRandomFlip')],
)
