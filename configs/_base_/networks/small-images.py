# The papers' networks for 32-pixel colour images, without what belongs to a dataset: classes,
# statistics and image size. Files beside this one add that.
networks = dict(
    # He et al.'s thin family (16, 32, 64 channels)
    resnet20=dict(
        type='Classifier',
        name='ResNet20',
        backbone=dict(type='CifarResNet', depth=20),
        head=dict(type='ClsHead', in_channels=64),
    ),
    resnet8=dict(
        type='Classifier',
        name='ResNet8',
        backbone=dict(type='CifarResNet', depth=8),
        head=dict(type='ClsHead', in_channels=64),
    ),
    # Wide residual networks
    wrn_40_2=dict(
        type='Classifier',
        name='WRN-40-2',
        backbone=dict(type='WideResNet', depth=40, widen_factor=2),
        head=dict(type='ClsHead', in_channels=128),
    ),
    wrn_16_1=dict(
        type='Classifier',
        name='WRN-16-1',
        backbone=dict(type='WideResNet', depth=16, widen_factor=1),
        head=dict(type='ClsHead', in_channels=64),
    ),
)
