# The embedded benchmark from few images of a web pool, and those that a GAN makes of them.
_base_ = './digits.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='HybridDataset',
        collected=dict(type='GlyphPool', num_images=12000),
        synthetic=dict(type='ImageBank'),
    ),
    sampler=dict(_delete_=True, type='HybridSampler', repeat=6, passes=13),
    batch_sampler=dict(type='HybridBatchSampler', gan_batch_size=32),
    batch_size=64,
)
