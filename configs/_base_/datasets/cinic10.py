# CINIC-10: 90,000 images to train on, 90,000 to test on. The papers validate on the test split.
# Into data/cinic10: CINIC-10.tar.gz as published, or its folders train, valid and test.
_base_ = './cifar10.py'

train_dataloader = dict(
    dataset=dict(type='CINIC10', data_root='data/cinic10', split='train'),
)
val_dataloader = dict(
    dataset=dict(type='CINIC10', data_root='data/cinic10', split='test'),
)
test_dataloader = dict(
    dataset=dict(type='CINIC10', data_root='data/cinic10', split='test'),
)
