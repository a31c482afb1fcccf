# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import torch

from mmdfkd.models.classifiers import ClsHead


def test_linear_head_is_w_x_plus_b_under_mmpretrains_names():
    head = ClsHead(in_channels=2, num_classes=3)
    assert list(head.state_dict()) == ['fc.weight', 'fc.bias']  # as LinearClsHead
    with torch.no_grad():
        head.fc.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]]))
        head.fc.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    # (1*5 + 2*7, -7 + 1, 3*5 - 1)
    assert head(torch.tensor([[5.0, 7.0]])).tolist() == [[19.0, -6.0, 14.0]]


def test_hidden_layers_have_a_relu():
    head = ClsHead(in_channels=1, num_classes=1, hidden_channels=[2])
    with torch.no_grad():
        head.layers[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        head.layers[0].bias.zero_()
        head.fc.weight.copy_(torch.tensor([[1.0, 10.0]]))
        head.fc.bias.zero_()
    # relu(x) + 10 relu(-x)
    assert head(torch.tensor([[2.0], [-3.0]])).flatten().tolist() == [2.0, 30.0]


def test_parameters_of_lenet5():
    # 120 -> 84 -> 10 with biases: 120*84 + 84 + 84*10 + 10 = 11,014
    head = ClsHead(120, 10, hidden_channels=[84])
    assert sum(p.numel() for p in head.parameters()) == 11014
    assert (head.in_channels, head.num_classes) == (120, 10)
