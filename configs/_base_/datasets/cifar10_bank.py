# CIFAR-10 to test on and no image to train on: the method fills a bank, of which an epoch takes
# 400 batches of 256, augmented as CIFAR is.
_base_ = './cifar10.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImageBank'),
    sampler=dict(_delete_=True, type='BankSampler', length=400 * 256),
    batch_size=256,
)
