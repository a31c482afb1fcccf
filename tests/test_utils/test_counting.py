# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import torch
from torch import nn

from mmdfkd.models.classifiers import load_classifier
from mmdfkd.utils.counting import count_macs, count_parameters


def test_sizes_of_lenet5_by_hand():
    network = load_classifier('mmdfkd://lenet5_digits').train()
    # 28*28*6*25 + 10*10*16*150 + 120*400 + 120*84 + 84*10, and 61,706 of the papers
    assert count_macs(network) == 416_520
    assert count_parameters(network) == 61_706
    assert network.training
    network.requires_grad_(False)
    assert count_parameters(network) == 61_706  # frozen ones count
    assert count_parameters(network, trained=True) == 0
    assert count_macs(None) is None and count_parameters(None) is None


def test_counting_changes_nothing():
    network = load_classifier('mmdfkd://resnet8_digits').train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert count_macs(network) > 0
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_networks_of_other_items_and_more_of_them():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(7, 4), nn.Linear(2, 4)

        def forward(self, item, other):
            return self.first(item) + self.second(other)

    assert count_macs(Sum(), (7,), torch.zeros(1, 2)) == 7 * 4 + 2 * 4
    assert count_macs(Sum(), (5, 7), torch.zeros(1, 2)) == 5 * 7 * 4 + 2 * 4
    tied = nn.Sequential(shared := nn.Linear(3, 3), shared)
    assert count_parameters(tied) == 12 and count_macs(tied, (3,)) == 2 * 9
