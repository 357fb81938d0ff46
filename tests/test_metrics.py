"""Ranks and accuracies of retrieval, and measures over a whole split against slow references."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from bm.metrics import (
    OnlineAccuracy,
    OnlineCorrelation,
    OnlineErrors,
    chance,
    chance_of_match,
    rank_of_truth,
    top_k_accuracy,
)


def test_rank_counts_the_candidates_above_the_truth():
    scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert rank_of_truth(scores, torch.tensor([0, 1, 2])).tolist() == [0, 2, 1]


def test_ties_count_half():
    scores = torch.tensor([[1.0, 1.0, 0.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    assert rank_of_truth(scores, torch.tensor([0, 2])).tolist() == [1.5, 1.5]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf"), 0.0])
def test_estimate_without_a_preference_never_reaches_more_than_chance(broken):
    scores = torch.full((5, 100), broken)
    ranks = rank_of_truth(scores, torch.arange(5))
    assert top_k_accuracy(ranks, 10, 100) == 0.0


def test_nan_beside_the_truth_counts_as_above():
    scores = torch.tensor([[float("nan"), 1.0, 0.0]])
    assert rank_of_truth(scores, torch.tensor([1])).tolist() == [1]


def test_accuracy_is_the_share_of_ranks_below_k():
    ranks = torch.tensor([0.0, 4.0, 5.0, 99.0])
    assert top_k_accuracy(ranks, 1, 100) == 0.25
    assert top_k_accuracy(ranks, 5, 100) == 0.5
    assert top_k_accuracy(ranks, 10, 100) == 0.75


def test_tie_across_the_border_is_a_miss():
    assert top_k_accuracy(torch.tensor([0.5, 9.5, 9.0]), 1, 100) == 0.0
    assert top_k_accuracy(torch.tensor([0.5, 9.5, 9.0]), 10, 100) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("ranks", "k"), [([1.0], 10), ([1.0], 11), ([], 5)])
def test_accuracy_that_says_nothing_is_refused(ranks, k):
    with pytest.raises(ValueError, match="Top-1|no ranks"):
        top_k_accuracy(torch.tensor(ranks), k, 10)


def test_chance_is_k_of_the_candidates():
    assert chance(10, 1428) == pytest.approx(0.0070, abs=1e-4)
    assert chance(10, 190) == pytest.approx(0.053, abs=1e-3)
    assert chance(10, 5) == 1.0


def test_chance_of_match_equals_counting_all_draws():
    matching = {0, 1}
    draws = list(itertools.combinations(range(7), 3))
    counted = sum(bool(matching & set(draw)) for draw in draws) / len(draws)
    assert chance_of_match(3, 7, 2) == pytest.approx(counted)
    assert chance_of_match(6, 7, 2) == 1.0


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    """Estimates and targets [B, 3, 20] that share something, and masks, of unequal batches."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for size in (4, 1, 7):
        target = torch.randn(size, 3, 20, generator=generator)
        noise = torch.randn(size, 3, 20, generator=generator)
        mask = torch.rand(size, 1, 20, generator=generator) < 0.6
        made.append((0.5 * target + noise, target, mask))
    return made


def columns(batches: list[tuple[Tensor, Tensor, Tensor]], masked: bool) -> np.ndarray:
    """[2, n, 3] estimates and targets of all samples that count, one after the other."""
    kept: tuple[list[list[float]], list[list[float]]] = ([], [])
    for estimate, target, mask in batches:
        for segment, sample in itertools.product(range(len(mask)), range(20)):
            if mask[segment, 0, sample] or not masked:
                for values, listed in zip((estimate, target), kept, strict=True):
                    listed.append(values[segment, :, sample].double().tolist())
    return np.array(kept)


def correlation_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - sum(x) / len(x), y - sum(y) / len(y)
    return sum(x * y) / (sum(x * x) * sum(y * y)) ** 0.5


@pytest.mark.parametrize("masked", [False, True])
def test_streamed_correlation_and_errors_are_those_of_all_samples(batches, masked):
    correlation, errors = OnlineCorrelation(), OnlineErrors()
    for estimate, target, mask in batches:
        correlation.update(estimate, target, mask if masked else None)
        errors.update(estimate, target, mask if masked else None)
    x, y = columns(batches, masked)
    expected = [correlation_by_hand(x[:, column], y[:, column]) for column in range(3)]
    np.testing.assert_allclose(correlation.compute(), expected, rtol=1e-12)
    l1, l2 = errors.compute()
    np.testing.assert_allclose(l1, np.abs(x - y).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(l2, ((x - y) ** 2).mean(axis=0), rtol=1e-12)


def test_correlation_keeps_its_digits_beside_a_large_offset(batches):
    near, far = OnlineCorrelation(), OnlineCorrelation()
    for estimate, target, _ in batches:
        near.update(estimate, target)
        far.update(estimate.double() + 1e8, 1e-13 * target.double() - 1e-7)
    torch.testing.assert_close(far.compute(), near.compute(), rtol=1e-7, atol=0)


def test_correlations_of_two_processes_merge_into_that_of_one(batches):
    whole, first, second = OnlineCorrelation(), OnlineCorrelation(), OnlineCorrelation()
    for index, (estimate, target, mask) in enumerate(batches):
        whole.update(estimate, target, mask)
        (first if index < 2 else second).update(estimate, target, mask)
    first.merge(second)
    first.merge(OnlineCorrelation())  # one that has seen nothing
    assert first.n == whole.n
    torch.testing.assert_close(first.compute(), whole.compute(), rtol=1e-12, atol=0)


def test_correlation_of_what_never_changes_is_not_a_number(batches):
    correlation = OnlineCorrelation()
    for estimate, target, _ in batches:
        flat = target.double()
        flat[:, 0], flat[:, 1] = 0.1, 0.0  # the mean of many 0.1 is not quite 0.1
        correlation.update(estimate, flat)
        correlation.update(estimate, flat, torch.zeros(len(flat), 1, 20))  # nothing counts
    assert correlation.compute().isnan().tolist() == [True, True, False]


def test_correlation_with_itself_is_one_and_with_its_opposite_minus_one(batches):
    same, opposite = OnlineCorrelation(), OnlineCorrelation()
    for _, target, _ in batches:
        same.update(3 * target + 1, target)
        opposite.update(-target, target)
    np.testing.assert_allclose(same.compute(), 1.0, rtol=1e-7)
    np.testing.assert_allclose(opposite.compute(), -1.0, rtol=1e-7)


def test_macro_average_counts_every_class_alike():
    accuracy = OnlineAccuracy(3)
    labels = torch.tensor([[[0, 0, 0, 0, 0, 0]], [[0, 0, 1, 1, 2, 2]]])
    told = torch.tensor([[0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]])
    accuracy.update(torch.nn.functional.one_hot(told, 3).transpose(1, 2).float(), labels)
    assert accuracy.compute() == (pytest.approx(9 / 12), pytest.approx((1 + 1 / 2 + 0) / 3))


def test_accuracy_leaves_out_masked_samples_and_classes_that_never_occur():
    accuracy = OnlineAccuracy(4)
    labels, told = torch.tensor([[[0, 1, 3]]]), torch.tensor([[0, 0, 0]])
    logits = torch.nn.functional.one_hot(told, 4).transpose(1, 2).float()
    accuracy.update(logits, labels, torch.tensor([[[1, 1, 0]]]))
    assert accuracy.compute() == (0.5, 0.5)


def test_labels_and_logits_must_fit_the_classes():
    accuracy = OnlineAccuracy(3)
    with pytest.raises(ValueError, match="Labels from 0 to 3 don't fit 3 classes"):
        accuracy.update(torch.zeros(1, 3, 2), torch.tensor([[[0, 3]]]))
    with pytest.raises(ValueError, match="4 logits, but there are 3 classes"):
        accuracy.update(torch.zeros(1, 4, 2), torch.tensor([[[0, 1]]]))
    with pytest.raises(ValueError, match="n_classes=1"):
        OnlineAccuracy(1)


@pytest.mark.parametrize("measure", [OnlineCorrelation(), OnlineErrors(), OnlineAccuracy(2)])
def test_measure_of_nothing_is_refused(measure):
    with pytest.raises(ValueError, match="no samples"):
        measure.compute()
