# The papers' networks for small colour images, without what belongs to a dataset (classes, image
# size, statistics): the files of the datasets, beside this one, add that.
networks = dict(
    # ResNets of four stages, 64 to 512 channels: mmpretrain's
    resnet34=dict(
        type='Classifier',
        name='ResNet34',
        backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=34, zero_init_residual=False),
        head=dict(type='ClsHead', in_channels=512),
    ),
    resnet18=dict(
        type='Classifier',
        name='ResNet18',
        backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18, zero_init_residual=False),
        head=dict(type='ClsHead', in_channels=512),
    ),
    # ResNets of three stages, 16 to 64 channels, and the four times wider ones
    resnet110=dict(
        type='Classifier',
        name='ResNet110',
        backbone=dict(type='CifarResNet', depth=110),
        head=dict(type='ClsHead', in_channels=64),
    ),
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
    resnet32x4=dict(
        type='Classifier',
        name='ResNet32x4',
        backbone=dict(type='CifarResNet', depth=32, widths=(64, 128, 256), stem_channels=32),
        head=dict(type='ClsHead', in_channels=256),
    ),
    resnet8x4=dict(
        type='Classifier',
        name='ResNet8x4',
        backbone=dict(type='CifarResNet', depth=8, widths=(64, 128, 256), stem_channels=32),
        head=dict(type='ClsHead', in_channels=256),
    ),
    vgg16=dict(
        type='Classifier',
        name='VGG16',
        backbone=dict(type='SmallVGG', depth=16),
        head=dict(type='ClsHead', in_channels=512),
    ),
    vgg13=dict(
        type='Classifier',
        name='VGG13',
        backbone=dict(type='SmallVGG', depth=13),
        head=dict(type='ClsHead', in_channels=512),
    ),
    wrn_40_2=dict(
        type='Classifier',
        name='WRN-40-2',
        backbone=dict(type='WideResNet', depth=40, widen_factor=2),
        head=dict(type='ClsHead', in_channels=128),
    ),
    wrn_40_1=dict(
        type='Classifier',
        name='WRN-40-1',
        backbone=dict(type='WideResNet', depth=40, widen_factor=1),
        head=dict(type='ClsHead', in_channels=64),
    ),
    wrn_16_2=dict(
        type='Classifier',
        name='WRN-16-2',
        backbone=dict(type='WideResNet', depth=16, widen_factor=2),
        head=dict(type='ClsHead', in_channels=128),
    ),
    wrn_16_1=dict(
        type='Classifier',
        name='WRN-16-1',
        backbone=dict(type='WideResNet', depth=16, widen_factor=1),
        head=dict(type='ClsHead', in_channels=64),
    ),
    # Mobile networks; the last 1x1 convolution of two of them is the neck
    shufflenet_v1=dict(
        type='Classifier',
        name='ShuffleNetV1',
        backbone=dict(type='SmallShuffleNetV1'),
        head=dict(type='ClsHead', in_channels=960),
    ),
    shufflenet_v2=dict(
        type='Classifier',
        name='ShuffleNetV2',
        backbone=dict(type='SmallShuffleNetV2'),
        neck=dict(type='ConvNeck', in_channels=464, out_channels=1024),
        head=dict(type='ClsHead', in_channels=1024),
    ),
    mobilenet_v2_half=dict(
        type='Classifier',
        name='MobileNetV2-half',
        backbone=dict(type='SmallMobileNetV2', width=0.5),
        neck=dict(type='ConvNeck', in_channels=160, out_channels=1280),
        head=dict(type='ClsHead', in_channels=1280),
    ),
)
