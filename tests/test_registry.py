# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import subprocess
import sys

import pytest
from mmengine.registry import WEIGHT_INITIALIZERS

from mmdfkd import registry
from mmdfkd.datasets import ImageBank, ImagePool, NoisePool


def test_weights_of_their_backbones_are_initialised_in_our_scope():
    """Where a scope has no registry for it, mmengine warns with each network."""
    with WEIGHT_INITIALIZERS.switch_scope_and_registry('mmdfkd') as found:
        assert found is registry.WEIGHT_INITIALIZERS
        assert found.get('Kaiming') is WEIGHT_INITIALIZERS.get('Kaiming')


@pytest.mark.parametrize('written', ['ImageBank', 'mmdfkd.ImageBank', ImageBank])
def test_a_config_describes_a_class_however_it_is_written(written):
    def describes(*kinds):
        return registry.describes(registry.DATASETS, dict(type=written, root='r'), *kinds)

    assert registry.class_of(registry.DATASETS, dict(type=written)) is ImageBank
    assert describes(ImageBank) and describes(ImagePool) and describes(NoisePool, ImageBank)
    assert not describes(NoisePool)


@pytest.mark.parametrize('config', [None, 'ImageBank', {}, dict(type='NoSuchSet'), ImageBank])
def test_what_describes_nothing(config):
    assert not registry.describes(registry.DATASETS, config, ImageBank)


@pytest.mark.slow
def test_networks_of_mmpretrain_come_without_advice():
    """In a process that has imported nothing else; pytest has filters of its own."""
    code = "from mmdfkd.registry import MODELS; print(MODELS.get('mmpretrain.ResNet_CIFAR'))"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert 'ResNet_CIFAR' in done.stdout and 'You should install' not in done.stderr
