# Tiny-ImageNet to validate on; to train on, the 1,281,167 images of ImageNet at 64 pixels,
# unlabelled. From the official down-sampled batches (image-net.org, Imagenet64_train_part*.zip):
#   python tools/dataset_converters/pack_images.py Imagenet64_train_part1.zip \
#       Imagenet64_train_part2.zip --size 64 --out data/pools/imagenet-64
# Tiny-ImageNet is itself a part of ImageNet, so this pool holds original images:
# tools/dataset_converters/filter_pool.py finds the duplicates; leave them out with dataset.keep.
_base_ = './tiny-imagenet.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImagePool', root='data/pools/imagenet-64'),
    batch_size=1024,
)
