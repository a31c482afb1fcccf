# MNIST at 32 pixels to test on and no image to train on: 50 batches of 512 latents an epoch.
_base_ = './mnist.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='LatentDataset', length=50 * 512),
    sampler=dict(_delete_=True, type='CountingSampler'),
    batch_size=512,
)
data_preprocessor = dict(augment=None)
