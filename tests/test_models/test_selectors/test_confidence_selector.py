# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import math

import pytest
import torch

from mmdfkd.models.selectors import ConfidenceSelector
from mmdfkd.models.selectors.confidence_selector import most_certain, uncertainty
from mmdfkd.registry import TASK_UTILS
from mmdfkd.utils import UsageError


@pytest.fixture
def said(monkeypatch):
    """What was logged."""
    lines = []
    monkeypatch.setattr(
        'mmdfkd.models.selectors.confidence_selector.print_log',
        lambda text, *_: lines.append(text),
    )
    return lines


def select(logits, **settings):
    return ConfidenceSelector(**settings)(
        pool_size=len(logits), teacher_logits=logits, epoch=1, max_epochs=9
    )


# The score ------------------------------------------------------------------------------------


def test_score_by_hand():
    # -ln softmax: row 1 is ln(e^2 + 1 + 1/e) - 2 and so on; a constant changes nothing
    logits = torch.tensor([[2.0, 0, -1], [0, 1, 0], [1, 1, 3]])
    expected = torch.tensor([0.169846, 0.551445, 0.239545], dtype=torch.float64)
    torch.testing.assert_close(uncertainty(logits), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(uncertainty(logits + 7), expected, atol=1e-6, rtol=0)
    assert select(logits, num_select=2).indices.tolist() == [0, 2]


def test_score_at_the_ends():
    # Uniform: ln 10. Two equal maxima and nothing else: ln 2. A gap of 50: e^-50, where float32
    # cross-entropy gives 0.
    logits = torch.full((3, 10), -500.0)
    logits[0] = 3.0
    logits[1, 4] = logits[1, 7] = 0
    logits[2, 4], logits[2, 7] = 0, -50
    scores = uncertainty(logits).tolist()
    assert scores == pytest.approx([math.log(10), math.log(2), math.exp(-50)], rel=1e-6)


def test_published_scores_and_selection(golden):
    arrays = golden('dfnd')
    logits = arrays['pool_t_logits']
    kept = arrays['sel_index_sorted']
    selection = select(logits, num_select=len(kept))
    torch.testing.assert_close(selection.scores, arrays['sel_value_ce'], atol=1e-5, rtol=1e-5)
    assert torch.equal(selection.pseudo_labels, arrays['sel_pred'])
    assert torch.equal(selection.indices, kept)
    # The entropy of the whole prediction would have chosen others.
    assert not torch.equal(selection.indices, arrays['alt_entropy_index_sorted'])


def test_largest_probability_decides_not_entropy():
    # entropy .6999 < .9275, but -ln .60 = .5108 > .4780 = -ln .62
    logits = torch.tensor([[0.60, 0.395, 0.005], [0.62, 0.19, 0.19]]).log()
    selection = select(logits, num_select=1)
    assert selection.indices.tolist() == [1]
    torch.testing.assert_close(selection.scores, torch.tensor([0.5108, 0.4780]), atol=1e-4, rtol=0)
    torch.testing.assert_close(selection.confidence, torch.tensor([0.60, 0.62]))


def test_very_certain_images_are_told_apart(said):
    logits = torch.zeros(6, 3)
    logits[:, 0] = torch.tensor([40.0, 60, 50, 110, 90, 70])  # float32: e^-110 = 0
    assert select(logits, num_select=3).indices.tolist() == [3, 4, 5]
    assert not said


# What is kept ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('settings', 'count'),
    [
        ({}, 10),
        (dict(keep_ratio=0.3), 6),
        (dict(keep_ratio=0.34), 7),  # 6.8: to the nearest
        (dict(keep_ratio=1e-6), 1),
        (dict(num_select=7), 7),
    ],
)
def test_count(settings, count):
    logits = torch.randn(20, 4)
    indices = select(logits, **settings).indices
    expected = uncertainty(logits).argsort()[:count].sort().values
    assert torch.equal(indices, expected)


def test_counts_are_of_the_whole_pool():
    logits = torch.randn(50, 4)
    selection = select(logits, keep_ratio=0.2)
    assert selection.counts.tolist() == logits.argmax(1).bincount(minlength=4).tolist()
    assert selection.thresholds.numel() == 0 and math.isnan(selection.student_weight)


def test_permuting_the_pool_permutes_the_selection(said):
    logits, order = torch.randn(200, 5), torch.randperm(200)
    chosen = select(logits).indices
    permuted = select(logits[order]).indices
    assert torch.equal(order[permuted].sort().values, chosen)


def test_ties_at_the_border_do_not_depend_on_the_order(said):
    # Four images of one score: permutations of the same logits.
    tied = torch.tensor([[3.0, 1, 0], [3, 0, 1], [0, 1, 3], [1, 3, 0]])
    logits = torch.cat([torch.tensor([[9.0, 0, 0]]), tied, torch.tensor([[1.0, 1, 1]])])
    chosen = {tuple(row) for row in logits[select(logits, num_select=3).indices].tolist()}
    assert chosen == {(9, 0, 0), (0, 1, 3), (1, 3, 0)}
    for _ in range(10):
        permuted = logits[torch.randperm(6)]
        again = permuted[select(permuted, num_select=3).indices].tolist()
        assert {tuple(row) for row in again} == chosen
    assert all('4 images tie at the border, v = 0.17' in line for line in said) and len(said) == 11


def test_identical_images_are_taken_in_their_order(said):
    logits = torch.tensor([[1.0, 0], [5, 0], [5, 0], [5, 0]])
    assert most_certain(uncertainty(logits), logits, 2).tolist() == [1, 2]
    assert len(said) == 1
    assert most_certain(uncertainty(logits), logits, 3).tolist() == [1, 2, 3]
    assert len(said) == 1  # no tie across the border


def test_too_small_a_pool_is_used_as_a_whole_and_said(said):
    assert select(torch.randn(5, 3), num_select=6).indices.tolist() == [0, 1, 2, 3, 4]
    assert len(said) == 1
    assert '5 images, fewer than the 6 of model.selector.num_select; all are used' in said[0]
    assert len(select(torch.randn(5, 3), num_select=5).indices) == 5 and len(said) == 1


def test_it_is_asked_once_and_of_the_teacher():
    selector = TASK_UTILS.build(dict(type='ConfidenceSelector', num_select=8))
    assert selector.once and selector.needs == ('teacher',)
    assert selector.settings(20) == dict(num_select=8) and selector.settings(4)['num_select'] == 4


# In batches -----------------------------------------------------------------------------------


def test_half_of_a_batch(golden):
    logits = golden('dfnd')['t_logits']
    selector = ConfidenceSelector(scope='batch', keep_ratio=0.5)
    kept = selector.in_batch(logits)
    expected = golden('dfnd')['mmrazor586_half_kept_index'].sort().values
    assert torch.equal(kept.nonzero().flatten(), expected) and kept.dtype == torch.float32
    assert ConfidenceSelector(scope='batch', keep_ratio=1.0).in_batch(logits).sum() == 12


def test_batches_leave_the_pool_alone():
    selector = ConfidenceSelector(scope='batch')
    assert selector.needs == () and selector(pool_size=4).indices.tolist() == [0, 1, 2, 3]


# Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        (dict(num_select=0), r'num_select is 0'),
        (dict(keep_ratio=0.0), r'keep_ratio is 0\.0; it must lie in \(0, 1\]'),
        (dict(keep_ratio=1.2), r'keep_ratio is 1\.2'),
        (dict(num_select=3, keep_ratio=0.5), r'num_select=3 and keep_ratio=0\.5.*one of them'),
        (dict(scope='class'), r"scope='class'.*'global', 'batch'"),
        (dict(scope='batch', num_select=3), r"scope='batch'.*Give keep_ratio"),
        (dict(scope='batch', index_file='a.npz'), r"scope='batch'.*Give keep_ratio"),
        (dict(index_file='index.json'), r"index_file is 'index\.json'.*\.npz"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(UsageError, match=named):
        ConfidenceSelector(**settings)


@pytest.mark.parametrize('value', [torch.nan, torch.inf])
def test_a_broken_teacher_is_named(value):
    logits = torch.randn(6, 3)
    logits[2, 1] = logits[4, 0] = value
    with pytest.raises(UsageError, match=r'no finite logits for 2 of 6 .*model\.teacher\.checkp'):
        select(logits)


# At most so many of a class -------------------------------------------------------------------


def of_classes(*classes_and_margins):
    """Logits of images with these classes, of three; the larger the margin the more certain."""
    logits = torch.zeros(len(classes_and_margins), 3)
    for row, (label, margin) in zip(logits, classes_and_margins, strict=True):
        row[label] = margin
    return logits


def test_class_cap_by_hand():
    """Class 0 has the five most certain images; two of each, and class 2 has but one."""
    logits = of_classes((0, 9), (0, 8), (0, 7), (0, 6), (1, 5), (1, 4), (1, 3), (2, 2), (0, 5.5))
    capped = ConfidenceSelector(num_select=5, class_cap=2)
    assert capped(pool_size=9, teacher_logits=logits).indices.tolist() == [0, 1, 4, 5, 7]
    even = ConfidenceSelector(num_select=6, class_cap='even')  # the sixth: the best that is left
    assert even(pool_size=9, teacher_logits=logits).indices.tolist() == [0, 1, 2, 4, 5, 7]
    free = ConfidenceSelector(num_select=5)
    assert free(pool_size=9, teacher_logits=logits).indices.tolist() == [0, 1, 2, 3, 8]
    few = ConfidenceSelector(num_select=3, class_cap=2)
    assert few(pool_size=9, teacher_logits=logits).indices.tolist() == [0, 1, 4]


def test_an_even_cap_is_rounded_up():
    """Four of three classes: two of each at most, not one."""
    logits = of_classes((0, 9), (0, 8), (0, 7), (1, 3), (1, 2), (2, 1))
    even = ConfidenceSelector(num_select=4, class_cap='even')
    assert even(pool_size=6, teacher_logits=logits).indices.tolist() == [0, 1, 3, 4]


def test_the_cap_is_one_of_the_settings_of_an_answer():
    selector = ConfidenceSelector(num_select=4, class_cap='even')
    assert selector.settings(6) == dict(num_select=4, class_cap='even')


def test_index_file_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert ConfidenceSelector(index_file='~/index.npz').index_file == tmp_path / 'index.npz'


def test_class_cap_ignores_the_order_of_the_pool():
    logits = torch.randn(60, 5)
    selector = ConfidenceSelector(num_select=20, class_cap='even')
    chosen = selector(pool_size=60, teacher_logits=logits).indices
    order = torch.randperm(60)
    again = selector(pool_size=60, teacher_logits=logits[order]).indices
    assert sorted(order[again].tolist()) == chosen.tolist() and len(chosen) == 20


def test_ranking_of_published_code(golden):
    """HiDFD's helper ranks by the cross-entropy with the own decision, as DFND does."""
    arrays = golden('hidfd')
    selection = ConfidenceSelector(num_select=6)(pool_size=20, teacher_logits=arrays['N_logits'])
    assert selection.indices.tolist() == sorted(arrays['N_top6_idx'].tolist())
    torch.testing.assert_close(selection.scores, arrays['N_ce_to_argmax'], rtol=1e-5, atol=1e-6)
    certain = (selection.confidence > 0.6).nonzero().flatten()
    assert certain.tolist() == sorted(arrays['N_conf_gt0.6_idx'].tolist())


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(class_cap=0), "give 'even', or 1 image or more"),
        (dict(class_cap='evn'), "class_cap is 'evn'; give 'even', or 1 image or more"),
        (dict(class_cap=0.5), "give 'even', or 1 image or more"),
        (dict(scope='batch', keep_ratio=0.5, class_cap=3), 'neither a num_select nor a class_cap'),
    ],
)
def test_mistakes_with_the_cap(options, words):
    with pytest.raises(UsageError, match=words):
        ConfidenceSelector(**options)
