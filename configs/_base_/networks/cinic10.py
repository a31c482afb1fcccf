# The papers' networks for CINIC-10, with the statistics of its training set.
_base_ = './small-images.py'

cinic10 = dict(
    input_shape=(3, 32, 32), mean=[122.117, 120.431, 109.771], std=[61.725, 60.762, 65.981]
)
networks = {name: dict(head=dict(num_classes=10), **cinic10) for name in _base_.networks}
