# The embedded benchmark without its training data: an unlabelled web pool instead.
_base_ = './digits.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='GlyphPool', num_images=12000),
    batch_size=128,
)
