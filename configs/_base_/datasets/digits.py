# Original data of the embedded benchmark: 1,297 scans to train on, 500 to test on.
train_dataloader = dict(
    dataset=dict(type='DigitsDataset', split='train'),
    sampler=dict(type='SelectionSampler', shuffle=True),
    batch_size=64,
    num_workers=0,
)
val_dataloader = dict(
    dataset=dict(type='DigitsDataset', split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    batch_size=500,
    num_workers=0,
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='Accuracy'), dict(type='Agreement')]
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

data_preprocessor = dict(augment=[dict(type='BatchRandomCrop', size=32, padding=4)])
