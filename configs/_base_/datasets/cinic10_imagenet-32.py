# CINIC-10 to test on; to train on, the pool of cifar10_imagenet-32.py. CINIC-10 is itself made of
# ImageNet and CIFAR-10, so this pool holds original images:
# tools/dataset_converters/filter_pool.py finds the duplicates; leave them out with dataset.keep.
_base_ = './cinic10.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImagePool', root='data/pools/imagenet-32'),
    batch_size=1024,
)
data_preprocessor = dict(
    augment=[dict(type='BatchRandomResizedCrop', size=32), dict(type='BatchRandomFlip')],
)
