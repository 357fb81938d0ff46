"""Measures of how well estimates find their targets. Pure tensors."""

import math

from torch import Tensor


def rank_of_truth(scores: Tensor, truth: Tensor) -> Tensor:
    """Number of candidates [N] that score above the true one: 0 is best.

    Candidates that tie with the truth count half, so an estimate that says nothing ranks in the
    middle. What can't be compared counts as above: NaN never helps.

    Parameters
    ----------
    scores : [N, V], higher is better.
    truth : [N], column of the true candidate.
    """
    true_score = scores.gather(1, truth[:, None])
    below = (scores < true_score).sum(dim=1)
    others_tied = ((scores == true_score).sum(dim=1) - 1).clamp(min=0)
    last = scores.shape[1] - 1
    return (last - below - 0.5 * others_tied).clamp(max=last)


def top_k_accuracy(ranks: Tensor, k: int, n_candidates: int) -> float:
    """Share of ranks [N] among the best `k` of `n_candidates`.

    A rank between two whole numbers, left by ties, must be better than the k-th: ties buy no hits.

    Raises
    ------
    ValueError : there are not more than `k` candidates, or no ranks.
    """
    if k >= n_candidates:
        raise ValueError(f"Top-{k} of {n_candidates} candidates says nothing: choose a smaller k.")
    if not len(ranks):
        raise ValueError("There are no ranks to take an accuracy of.")
    return (ranks <= k - 1).double().mean().item()


def chance(k: int, n_candidates: int) -> float:
    """Top-k accuracy of guessing."""
    return min(1.0, k / n_candidates)


def chance_of_match(k: int, n_candidates: int, n_matching: int) -> float:
    """Probability that at least one of `k` candidates drawn at random matches."""
    n_others = n_candidates - n_matching
    if n_others < k:
        return 1.0
    return 1.0 - math.comb(n_others, k) / math.comb(n_candidates, k)
