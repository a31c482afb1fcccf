# CIFAR-10 to test on; to train on, the 1,281,167 images of ImageNet at 32 pixels, unlabelled.
# From the official down-sampled batches (image-net.org, Imagenet32_train.zip):
#   python tools/dataset_converters/pack_images.py Imagenet32_train.zip --out data/pools/imagenet-32
_base_ = './cifar10.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImagePool', root='data/pools/imagenet-32'),
    batch_size=1024,
)
data_preprocessor = dict(
    augment=[dict(type='BatchRandomResizedCrop', size=32), dict(type='BatchRandomFlip')],
)
