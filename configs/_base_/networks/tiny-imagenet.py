# The papers' networks for the 64-pixel images of Tiny-ImageNet, with the constants that HiDFD's code
# uses for it (those of CIFAR-10, as many codes have them).
_base_ = './small-images.py'

tiny_imagenet = dict(
    input_shape=(3, 64, 64), mean=[125.307, 122.961, 113.858], std=[51.587, 50.847, 51.255]
)
networks = {name: dict(head=dict(num_classes=200), **tiny_imagenet) for name in _base_.networks}
# A fourth pool, so that the last map is 4x4 again.
networks['vgg16']['backbone'] = dict(num_pools=4)
networks['vgg13']['backbone'] = dict(num_pools=4)
