# Few images of the pool of cifar100_imagenet-32.py, and those that a GAN makes of them.
_base_ = './cifar100_imagenet-32.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='HybridDataset',
        collected=dict(type='ImagePool', root='data/pools/imagenet-32'),
        synthetic=dict(type='ImageBank'),
    ),
    sampler=dict(_delete_=True, type='HybridSampler', repeat=10),
    batch_sampler=dict(type='HybridBatchSampler', gan_batch_size=100),
    batch_size=64,
)
