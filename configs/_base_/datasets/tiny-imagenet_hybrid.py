# Few images of the pool of tiny-imagenet_imagenet-64.py, and those that a GAN makes of them.
_base_ = './tiny-imagenet_imagenet-64.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='HybridDataset',
        collected=dict(type='ImagePool', root='data/pools/imagenet-64'),
        synthetic=dict(type='ImageBank'),
    ),
    sampler=dict(_delete_=True, type='HybridSampler', repeat=10),
    batch_sampler=dict(type='HybridBatchSampler', gan_batch_size=100),
    batch_size=64,
)
