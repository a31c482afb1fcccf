# CIFAR-10 to test on; to train on, half of Tiny-ImageNet's 100,000 images at 32 pixels, unlabelled.
# A stand-in for the papers' pool that a laptop can hold: the same source, 25 times fewer images.
#   python tools/dataset_converters/pack_images.py tiny-imagenet-200/train \
#       --size 32 --out data/pools/tiny-imagenet-32
_base_ = './cifar10.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImagePool', root='data/pools/tiny-imagenet-32', ratio=0.5),
    batch_size=128,
)
