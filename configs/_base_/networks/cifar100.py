# The papers' networks for CIFAR-100, with the statistics of its training set.
_base_ = './small-images.py'

cifar100 = dict(
    input_shape=(3, 32, 32), mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418]
)
networks = {name: dict(head=dict(num_classes=100), **cifar100) for name in _base_.networks}
