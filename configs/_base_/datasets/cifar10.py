# CIFAR-10: 50,000 images to train on, 10,000 to test on.
# Into data/cifar10: cifar-10-python.tar.gz as published, or its folder cifar-10-batches-py.
train_dataloader = dict(
    dataset=dict(type='CIFAR10', data_root='data/cifar10', split='train'),
    sampler=dict(type='SelectionSampler', shuffle=True),
    batch_size=128,
    num_workers=0,
)
val_dataloader = dict(
    dataset=dict(type='CIFAR10', data_root='data/cifar10', split='test'),
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    batch_size=500,
    num_workers=0,
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='Accuracy'), dict(type='Agreement')]
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

data_preprocessor = dict(
    augment=[dict(type='BatchRandomCrop', size=32, padding=4), dict(type='BatchRandomFlip')],
)
