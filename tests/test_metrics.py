import itertools

import pytest
import torch

from bm.metrics import chance, chance_of_match, rank_of_truth, top_k_accuracy


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
