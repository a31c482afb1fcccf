# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import torch

from mmdfkd.models.modules import ProjectionHead
from mmdfkd.registry import MODELS

CLOSE = dict(atol=1e-5, rtol=1e-4)


def test_matches_published_code(kd3_golden):
    head = ProjectionHead(12, 16)
    state = {f'linear.{name}': kd3_golden[f'con_head.{name}'] for name in ('weight', 'bias')}
    head.load_state_dict(state)
    torch.testing.assert_close(head(kd3_golden['con_f1']), kd3_golden['con_z1'], **CLOSE)
    torch.testing.assert_close(head(kd3_golden['con_f2']), kd3_golden['con_z2'], **CLOSE)


def test_hand_worked_value():
    # W = I, b = (0, 1): (3, 3) -> (3, 4) / 5
    head = ProjectionHead(2, 2)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(2))
        head.linear.bias.copy_(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(head(torch.full((1, 2), 3.0)), torch.tensor([[0.6, 0.8]]))


def test_unit_length_and_default_width():
    torch.manual_seed(0)
    head = MODELS.build(dict(type='ProjectionHead', in_channels=10))
    out = head(torch.randn(5, 10))
    assert out.shape == (5, 128)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(5))


def test_zero_vector_stays_finite():
    head = ProjectionHead(3, 4)
    torch.nn.init.zeros_(head.linear.bias)
    vector = torch.zeros(2, 3, requires_grad=True)
    out = head(vector)
    out.sum().backward()
    assert torch.equal(out, torch.zeros(2, 4))
    assert vector.grad.isfinite().all()


def test_vectors_shorter_than_eps_are_only_scaled():
    head = ProjectionHead(3, 3, eps=10.0)
    torch.nn.init.eye_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    vector = torch.tensor([[0.0, 3, 4], [0, 30, 40]])
    torch.testing.assert_close(head(vector), torch.tensor([[0.0, 0.3, 0.4], [0, 0.6, 0.8]]))


def test_autocast_normalises_in_float32():
    torch.manual_seed(0)
    head = ProjectionHead(6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = head(torch.randn(4, 6))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=1), torch.ones(4))


def test_gradcheck():
    torch.manual_seed(0)
    head = ProjectionHead(3, 4).double()
    assert torch.autograd.gradcheck(
        head, torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    )


def test_hidden_layer_matches_published_code(golden):
    """CMI's head, in double precision."""
    arrays = golden('cmi')
    head = ProjectionHead(12, 6, hidden_channels=12).double()
    names = {'fc1': 'hidden.0', 'fc2': 'linear'}
    state = {}
    for layer, ours in names.items():
        for name in ('weight', 'bias'):
            state[f'{ours}.{name}'] = arrays[f'head/state/{layer}.{name}']
    head.load_state_dict(state)
    torch.testing.assert_close(head(arrays['head/x']), arrays['head/y'], atol=1e-12, rtol=0)
    assert not ProjectionHead(12, 6).hidden.state_dict()
