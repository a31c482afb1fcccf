# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import pytest
import torch

from mmdfkd.models.modules import FeatureBank
from mmdfkd.utils import UsageError


def batch(value, size=2):
    return torch.full((size, 2), float(value))


def test_published_sequence(golden):
    """Four batches of two in a ring of six: the fourth takes the place of the first."""
    arrays = golden('cmi')
    bank = FeatureBank(6, 2).double()
    table = arrays['bank/round_nneg_ptr_nupdates_before_add'].tolist()
    for number, available, pointer, added in table:
        assert bank.added == added and bank.added % 6 == pointer
        # the published code finds none when the ring is exactly full; here there are six
        assert len(bank) == (6 if number == 3 else available)
        bank.add(batch(number + 1))
        filled = len(bank)
        expected = arrays[f'bank/after_add{number}'][:filled]
        assert torch.equal(bank.rows[:filled], expected)


def test_writing_past_the_end_goes_on_at_the_front():
    bank = FeatureBank(5, 2)
    for value in (1, 2, 3):
        bank.add(batch(value))
    assert bank.rows[:, 0].tolist() == [3, 1, 2, 2, 3] and len(bank) == 5
    bank.add(batch(4, 5))
    assert bank.rows[:, 0].tolist() == [4] * 5 and bank.added == 11


def test_draws_are_different_filled_rows():
    bank = FeatureBank(50, 2)
    assert bank.draw(4).shape == (0, 2)
    bank.add(torch.arange(1.0, 21).view(20, 1).expand(20, 2))
    for count, expected in ((0, 0), (7, 7), (30, 20)):
        drawn = bank.draw(count)[:, 0].tolist()
        assert len(drawn) == len(set(drawn)) == expected and all(drawn)
    counts = torch.zeros(21)
    for _ in range(400):
        counts[bank.draw(5)[:, 0].long()] += 1
    assert counts[0] == 0 and counts[1:].min() > 60  # 100 expected, deviation 9


def test_a_checkpoint_holds_it():
    bank, other = FeatureBank(5, 2), FeatureBank(5, 2)
    for value in (1, 2, 3):
        bank.add(batch(value))
    other.load_state_dict(bank.state_dict())
    for each in (bank, other):
        each.add(batch(4))
    assert other.rows[:, 0].tolist() == bank.rows[:, 0].tolist() == [3, 4, 4, 2, 3]


def test_rows_are_copies_without_gradient():
    bank = FeatureBank(4, 2)
    rows = torch.ones(2, 2, requires_grad=True)
    bank.add(rows * 2)
    assert not bank.rows.requires_grad
    bank.draw(2).zero_()
    assert bank.rows.sum() == 8


def test_more_than_it_holds():
    with pytest.raises(UsageError, match=r'6 features at once .* bank of 4\..*model\.bank_size'):
        FeatureBank(4, 2).add(batch(1, 6))
