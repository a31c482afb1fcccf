# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
"""Every network of the configs against the sizes of the published definitions.

Parameters and multiply-adds (convolutions and linear layers, one image) of the model files of KD³
(github.com/tangjialiang97/KD3; 64 pixels: its sibling HiDFD) and, for LeNet5, of DFND.
"""

from functools import cache
from pathlib import Path

import pytest

from mmdfkd.models.classifiers import map_shape
from mmdfkd.models.modules import SimKDAdapter
from mmdfkd.registry import MODELS
from mmdfkd.utils.config_read import load_config
from mmdfkd.utils.counting import count_macs, count_parameters

NETWORKS = Path(__file__).parents[3] / 'configs' / '_base_' / 'networks'

# dataset, network, parameters, multiply-adds, last map of the backbone
TABLE = [
    ('cifar10', 'resnet34', 21_282_122, 1_159_402_496, (512, 4, 4)),
    ('cifar10', 'resnet18', 11_173_962, 555_422_720, (512, 4, 4)),
    ('cifar10', 'resnet32x4', 7_410_730, 1_083_017_728, (256, 8, 8)),
    ('cifar10', 'resnet8x4', 1_210_410, 177_048_064, (256, 8, 8)),
    ('cifar10', 'vgg16', 14_728_266, 398_136_320, (512, 4, 4)),
    ('cifar10', 'vgg13', 9_416_010, 284_890_112, (512, 4, 4)),
    ('cifar10', 'wrn_40_2', 2_243_546, 327_599_360, (128, 8, 8)),
    ('cifar10', 'wrn_40_1', 563_930, 83_280_512, (64, 8, 8)),
    ('cifar10', 'wrn_16_2', 691_674, 101_106_944, (128, 8, 8)),
    ('cifar10', 'wrn_16_1', 175_066, 26_657_408, (64, 8, 8)),
    ('cifar10', 'shufflenet_v1', 862_768, 38_605_056, (960, 4, 4)),
    ('cifar10', 'shufflenet_v2', 1_263_278, 44_412_288, (464, 4, 4)),
    ('cifar10', 'mobilenet_v2_half', 697_546, 6_408_448, (160, 2, 2)),
    ('cifar100', 'resnet34', 21_328_292, 1_159_448_576, (512, 4, 4)),
    ('cifar100', 'resnet18', 11_220_132, 555_468_800, (512, 4, 4)),
    ('cifar100', 'resnet32x4', 7_433_860, 1_083_040_768, (256, 8, 8)),
    ('cifar100', 'resnet8x4', 1_233_540, 177_071_104, (256, 8, 8)),
    ('cifar100', 'vgg16', 14_774_436, 398_182_400, (512, 4, 4)),
    ('cifar100', 'vgg13', 9_462_180, 284_936_192, (512, 4, 4)),
    ('cifar100', 'wrn_40_2', 2_255_156, 327_610_880, (128, 8, 8)),
    ('cifar100', 'wrn_40_1', 569_780, 83_286_272, (64, 8, 8)),
    ('cifar100', 'wrn_16_2', 703_284, 101_118_464, (128, 8, 8)),
    ('cifar100', 'wrn_16_1', 180_916, 26_663_168, (64, 8, 8)),
    ('cifar100', 'shufflenet_v1', 949_258, 38_691_456, (960, 4, 4)),
    ('cifar100', 'shufflenet_v2', 1_355_528, 44_504_448, (464, 4, 4)),
    ('cifar100', 'mobilenet_v2_half', 812_836, 6_523_648, (160, 2, 2)),
    ('cinic10', 'resnet34', 21_282_122, 1_159_402_496, (512, 4, 4)),
    ('cinic10', 'vgg13', 9_416_010, 284_890_112, (512, 4, 4)),
    ('tiny-imagenet', 'resnet34', 21_379_592, 4_637_691_904, (512, 8, 8)),
    ('tiny-imagenet', 'resnet18', 11_271_432, 2_221_772_800, (512, 8, 8)),
    ('tiny-imagenet', 'vgg16', 14_825_736, 1_252_888_576, (512, 4, 4)),
    ('tiny-imagenet', 'vgg13', 9_513_480, 913_149_952, (512, 4, 4)),
    ('tiny-imagenet', 'wrn_40_2', 2_268_056, 1_310_417_920, (128, 16, 16)),
    ('tiny-imagenet', 'wrn_16_2', 716_184, 404_448_256, (128, 16, 16)),
    ('tiny-imagenet', 'shufflenet_v1', 1_045_358, 154_573_824, (960, 8, 8)),
    ('tiny-imagenet', 'shufflenet_v2', 1_458_028, 177_812_992, (464, 8, 8)),
    ('tiny-imagenet', 'mobilenet_v2_half', 940_936, 25_838_592, (160, 4, 4)),
    ('mnist', 'lenet5', 61_706, 416_520, (120, 1, 1)),
    ('mnist', 'lenet5_half', 15_738, 133_740, (60, 1, 1)),
]


@cache
def build(dataset, name):
    config = load_config(NETWORKS / f'{dataset}.py').networks[name]
    return MODELS.build(config).to('meta')  # shapes only: no arithmetic is done


@pytest.mark.parametrize(('dataset', 'name', 'parameters', 'macs', 'last_map'), TABLE)
def test_sizes(dataset, name, parameters, macs, last_map):
    network = build(dataset, name)
    assert count_parameters(network) == parameters
    assert count_macs(network) == macs
    assert map_shape(network.backbone, network.input_shape) == last_map


# He et al.'s ResNet-20 with projection shortcuts, 10 and 100 classes
@pytest.mark.parametrize(('dataset', 'expected'), [('cifar10', 272_474), ('cifar100', 278_324)])
def test_resnet20(dataset, expected):
    assert count_parameters(build(dataset, 'resnet20')) == expected


# Channels of student and teacher, parameters of SimKD's adapter between them
@pytest.mark.parametrize(
    ('student', 'teacher', 'expected'),
    [
        ('resnet18', 'resnet34', 854_016),
        ('wrn_16_1', 'wrn_40_2', 49_664),
        ('wrn_16_2', 'wrn_40_2', 53_760),
        ('wrn_16_1', 'resnet34', 739_328),
        ('wrn_16_2', 'resnet34', 755_712),
        ('shufflenet_v1', 'resnet34', 968_704),
        ('shufflenet_v2', 'resnet34', 841_728),
        ('mobilenet_v2_half', 'resnet34', 763_904),
        ('shufflenet_v2', 'wrn_40_2', 75_264),
    ],
)
def test_adapters(student, teacher, expected):
    source, target = (
        map_shape(build('cifar10', name).backbone, (3, 32, 32)) for name in (student, teacher)
    )
    adapter = SimKDAdapter(source[0], target[0], source[1], target[1])
    assert count_parameters(adapter) == expected


@pytest.mark.parametrize(
    ('dataset', 'shape', 'classes'),
    [
        ('cifar10', (3, 32, 32), 10),
        ('cifar100', (3, 32, 32), 100),
        ('cinic10', (3, 32, 32), 10),
        ('tiny-imagenet', (3, 64, 64), 200),
        ('mnist', (1, 32, 32), 10),
    ],
)
def test_every_network_knows_its_dataset(dataset, shape, classes):
    for name, config in load_config(NETWORKS / f'{dataset}.py').networks.items():
        assert config.input_shape == shape, name
        assert config.head.num_classes == classes, name
        assert len(config.mean) == len(config.std) == shape[0], name
        assert 20 < min(config.mean) <= max(config.mean) < 140, name  # of 0 to 255
