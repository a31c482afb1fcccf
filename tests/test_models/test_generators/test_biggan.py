# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.generators import BigGANGenerator
from mmdfkd.models.generators.biggan import UpBlock
from mmdfkd.utils import UsageError

CLOSE = dict(rtol=1e-5, atol=1e-5)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_block_of_published_code(golden, fill_biggan):
    arrays = golden('hidfd')
    block = fill_biggan(UpBlock(6, 4, 5).double(), arrays, 'D_gblock.').train()
    made = block(arrays['D_gblock_x'].double(), arrays['D_gblock_y'])
    torch.testing.assert_close(made, arrays['D_gblock_out'].double(), **CLOSE)


def test_images_of_published_code(golden, fill_biggan):
    """A first pass in train mode, then eval mode, whose spectral norms go on without memory."""
    arrays = golden('hidfd')
    generator = BigGANGenerator(5, (3, 32, 32), latent_size=8, width=2).double()
    fill_biggan(generator, arrays, 'E_G.').train()
    latent, labels = arrays['E_z'].double(), arrays['E_y']
    made = generator(latent, labels)
    torch.testing.assert_close(made, arrays['E_img_train'].double(), **CLOSE)
    kept = {name: value.clone() for name, value in generator.state_dict().items()}
    made = generator.eval()(latent, labels)
    torch.testing.assert_close(made, arrays['E_img_eval_after1'].double(), **CLOSE)
    for name, value in generator.state_dict().items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize(
    ('classes', 'size', 'key'), [(10, 32, 'c10'), (100, 32, 'c100'), (200, 64, 'tiny')]
)
def test_published_sizes(golden, classes, size, key):
    with torch.device('meta'):
        generator = BigGANGenerator(classes, (3, size, size))
    assert count(generator) == golden('hidfd')[f'P_{key}_G_params']


def test_only_the_class_differs():
    generator = BigGANGenerator(3, (1, 32, 32), latent_size=4, width=1).eval()
    latent = torch.randn(1, 4).expand(2, 4)
    first, second = generator(latent, torch.tensor([0, 2]))
    assert first.abs().max() <= 1 and not torch.allclose(first, second)
    same = generator(latent, torch.tensor([1, 1]))
    torch.testing.assert_close(same[0], same[1])


def test_first_weights_are_those_of_the_published_code():
    """From N(0, 0.02), gains and biases of classes too; those of norms are PyTorch's."""
    generator = BigGANGenerator(50, (3, 32, 32), width=8)
    for name, parameter in generator.named_parameters():
        if parameter.ndim > 1:
            assert parameter.mean().abs() < 0.003, name
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
    assert (generator.norm.weight == 1).all() and not generator.norm.bias.any()


def test_multiples_of_a_known_size_may_be_others():
    generator = BigGANGenerator(3, (1, 32, 32), latent_size=4, width=2, multiples=(8, 4, 2, 1))
    assert [block.conv2.out_channels for block in generator.blocks] == [8, 4, 2]
    assert generator(torch.randn(2, 4), torch.tensor([0, 1])).shape == (2, 1, 32, 32)


@pytest.mark.parametrize(
    ('shape', 'multiples', 'words'),
    [
        ((3, 16, 16), None, 'known for images of 32 and 64 pixels; the teacher takes 16 x 16'),
        ((3, 28, 28), None, 'side is 4, doubled: .*; the teacher takes 28 x 28'),
        ((3, 48, 48), (4, 4, 4, 4), 'side is 4, doubled: .*; the teacher takes 48 x 48'),
        ((3, 32, 64), (1, 1, 1, 1), 'takes 32 x 64'),
        ((3, 16, 16), (4, 4), 'images of 8 pixels; the teacher takes 16'),
    ],
)
def test_sizes_it_cannot_make(shape, multiples, words):
    with pytest.raises(UsageError, match=words):
        BigGANGenerator(10, shape, width=1, multiples=multiples)
