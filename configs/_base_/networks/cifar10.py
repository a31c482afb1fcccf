# The papers' networks for CIFAR-10, with the statistics of its training set.
_base_ = './small-images.py'

cifar10 = dict(
    input_shape=(3, 32, 32), mean=[125.307, 122.950, 113.865], std=[62.993, 62.089, 66.705]
)
networks = {name: dict(head=dict(num_classes=10), **cifar10) for name in _base_.networks}
