# The embedded benchmark without any image to train on: the method fills a bank, of which an epoch
# takes 50 batches.
_base_ = './digits.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImageBank'),
    sampler=dict(_delete_=True, type='BankSampler', length=50 * 96),
    batch_size=96,
)
