# The papers' networks for MNIST at 32 pixels, with the statistics of its training set.
mnist = dict(input_shape=(1, 32, 32), mean=[33.33], std=[78.57])

# DAFL's definition: 61,706 and 15,738 parameters.
networks = dict(
    lenet5=dict(
        type='Classifier',
        name='LeNet5',
        backbone=dict(type='LeNet5'),
        head=dict(type='ClsHead', in_channels=120, num_classes=10, hidden_channels=[84]),
        **mnist,
    ),
    lenet5_half=dict(
        type='Classifier',
        name='LeNet5-half',
        backbone=dict(type='LeNet5', width=0.5),
        head=dict(type='ClsHead', in_channels=60, num_classes=10, hidden_channels=[42]),
        **mnist,
    ),
)
