# MNIST enlarged to 32 pixels: 60,000 images to train on, 10,000 to test on; no augmentation.
# Into data/mnist: the four published files, with or without .gz; torchvision's MNIST/raw will do.
_base_ = './cifar10.py'

train_dataloader = dict(
    dataset=dict(type='MNIST', data_root='data/mnist', split='train', image_size=32),
)
val_dataloader = dict(
    dataset=dict(type='MNIST', data_root='data/mnist', split='test', image_size=32),
)
test_dataloader = dict(
    dataset=dict(type='MNIST', data_root='data/mnist', split='test', image_size=32),
)

data_preprocessor = dict(augment=None)
