# Networks for 32-pixel grey images, and the statistics of the digits training set.
digits = dict(input_shape=(1, 32, 32), mean=[78.0], std=[82.6])

# The papers' MNIST pair (DAFL's definition): 61,706 and 15,738 parameters.
lenet5 = dict(
    type='Classifier',
    name='LeNet5',
    backbone=dict(type='LeNet5'),
    head=dict(type='ClsHead', in_channels=120, num_classes=10, hidden_channels=[84]),
    **digits,
)
lenet5_half = dict(
    type='Classifier',
    name='LeNet5-half',
    backbone=dict(type='LeNet5', width=0.5),
    head=dict(type='ClsHead', in_channels=60, num_classes=10, hidden_channels=[42]),
    **digits,
)

# A pair with BatchNorm: 77,754 and 19,810 parameters. The stride of the stem makes them as cheap
# as on 16-pixel images.
resnet8 = dict(
    type='Classifier',
    name='ResNet8',
    backbone=dict(type='CifarResNet', depth=8, in_channels=1, stem_stride=2),
    head=dict(type='ClsHead', in_channels=64, num_classes=10),
    **digits,
)
resnet8_half = dict(
    type='Classifier',
    name='ResNet8-half',
    backbone=dict(type='CifarResNet', depth=8, widths=(8, 16, 32), in_channels=1, stem_stride=2),
    head=dict(type='ClsHead', in_channels=32, num_classes=10),
    **digits,
)
