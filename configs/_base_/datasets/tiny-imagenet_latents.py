# Tiny-ImageNet to validate on and no image to train on: 50 batches of 256 latents an epoch.
_base_ = './tiny-imagenet.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='LatentDataset', length=50 * 256),
    sampler=dict(_delete_=True, type='CountingSampler'),
    batch_size=256,
)
data_preprocessor = dict(augment=None)
