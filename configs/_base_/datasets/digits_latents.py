# The embedded benchmark without any image to train on: 50 batches of latents an epoch.
_base_ = './digits.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='LatentDataset', length=50 * 96),
    sampler=dict(_delete_=True, type='CountingSampler'),
    batch_size=96,
)
data_preprocessor = dict(augment=None)
