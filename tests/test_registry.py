# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
from mmengine.registry import WEIGHT_INITIALIZERS

from mmdfkd import registry


def test_weights_of_their_backbones_are_initialised_in_our_scope():
    """Where a scope has no registry for it, mmengine warns with each network."""
    with WEIGHT_INITIALIZERS.switch_scope_and_registry('mmdfkd') as found:
        assert found is registry.WEIGHT_INITIALIZERS
        assert found.get('Kaiming') is WEIGHT_INITIALIZERS.get('Kaiming')
