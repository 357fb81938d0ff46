"""Measures of how well estimates find, or equal, their targets. Pure tensors.

Retrieval: scores enter, ranks and accuracies leave. What runs over a whole split, batch after batch
(`OnlineCorrelation`, `OnlineErrors`, `OnlineAccuracy`), takes estimates and targets [B, F, T] and
keeps double-precision sums per column, so that no more than one batch is ever held; F are features,
or sensors where the brain signal is predicted.
"""

import math

import torch
from torch import Tensor

SMALLEST_DEVIATION = 1e-12
"""Of a column, relative to its mean: what deviates less is constant but for rounding."""


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


class OnlineCorrelation:
    """Pearson correlation of each column with its target, over all samples of all segments.

    Means and co-moments are merged batch by batch [1]_ rather than raw sums: a signal with an
    offset far above its variations loses no digits.

    References
    ----------
    .. [1] Chan, Golub & LeVeque 1983, doi:10.1080/00031305.1983.10483115
    """

    def __init__(self) -> None:
        self.n = 0.0
        self.means = self.moments = torch.empty(0)

    def update(self, estimates: Tensor, targets: Tensor, mask: Tensor | None = None) -> None:
        """Take in B segments [B, F, T]; only samples where the mask [B, 1, T] is 1 count."""
        pair = torch.stack([_samples(estimates, mask), _samples(targets, mask)])  # [2, n, F]
        if pair.shape[1]:
            means = pair.mean(dim=1)
            x, y = pair - means[:, None]
            moments = torch.stack([x.square().sum(0), y.square().sum(0), (x * y).sum(0)])
            self._merge(float(pair.shape[1]), means, moments)

    def merge(self, other: "OnlineCorrelation") -> None:
        """Take in what another one has seen, such as that of another process."""
        if other.n:
            self._merge(other.n, other.means, other.moments)

    def _merge(self, n: float, means: Tensor, moments: Tensor) -> None:
        if not self.n:
            self.n, self.means, self.moments = n, means, moments
            return
        total = self.n + n
        x, y = means - self.means
        between = torch.stack([x.square(), y.square(), x * y]) * (self.n * n / total)
        self.moments = self.moments + moments + between
        self.means = self.means + torch.stack([x, y]) * (n / total)
        self.n = total

    def compute(self) -> Tensor:
        """[F] float64 correlations; NaN for a column whose estimate or target never changes.

        Raises
        ------
        ValueError : nothing was taken in.
        """
        _check_seen(self.n)
        deviations = (self.moments[:2] / self.n).sqrt()
        is_flat = (deviations <= SMALLEST_DEVIATION * self.means.abs()).any(dim=0)
        correlation = self.moments[2] / self.n / deviations.prod(dim=0)
        return correlation.clamp(-1, 1).masked_fill(is_flat, torch.nan)


class OnlineErrors:
    """Mean absolute (L1) and mean squared (L2) difference of each column, over all samples."""

    def __init__(self) -> None:
        self.n = 0.0
        self.absolute = self.squared = torch.zeros(())

    def update(self, estimates: Tensor, targets: Tensor, mask: Tensor | None = None) -> None:
        """Take in B segments [B, F, T]; only samples where the mask [B, 1, T] is 1 count."""
        difference = _samples(estimates, mask) - _samples(targets, mask)
        self.absolute = self.absolute.to(difference) + difference.abs().sum(0)
        self.squared = self.squared.to(difference) + difference.square().sum(0)
        self.n += len(difference)

    def compute(self) -> tuple[Tensor, Tensor]:
        """L1 and L2, each [F] float64.

        Raises
        ------
        ValueError : nothing was taken in.
        """
        _check_seen(self.n)
        return self.absolute / self.n, self.squared / self.n


class OnlineAccuracy:
    """Share of samples whose class is told right, over all of them and averaged over classes.

    With rare classes only the second (macro) average says something: telling the commonest class
    throughout reaches 1 / K there.

    Parameters
    ----------
    n_classes : K.
    """

    def __init__(self, n_classes: int):
        if n_classes < 2:
            raise ValueError(f"n_classes={n_classes}: there is nothing to tell apart below 2.")
        self.n_classes = n_classes
        self.n_seen = torch.zeros(n_classes, dtype=torch.float64)
        self.n_right = torch.zeros(n_classes, dtype=torch.float64)

    def update(self, logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> None:
        """Take in B segments: logits [B, K, T], whole labels [B, 1, T], mask [B, 1, T].

        Raises
        ------
        ValueError : there are other than K logits, or a label isn't one of 0 to K - 1.
        """
        if logits.shape[1] != self.n_classes:
            raise ValueError(f"{logits.shape[1]} logits, but there are {self.n_classes} classes.")
        truth = _samples(labels, mask)[:, 0].long()
        if len(truth) and not 0 <= truth.min() <= truth.max() < self.n_classes:
            raise ValueError(
                f"Labels from {truth.min()} to {truth.max()} don't fit {self.n_classes} classes."
            )
        told = _samples(logits.argmax(dim=1, keepdim=True), mask)[:, 0]
        self.n_seen += truth.bincount(minlength=self.n_classes).cpu()
        self.n_right += truth[told == truth].bincount(minlength=self.n_classes).cpu()

    def compute(self) -> tuple[float, float]:
        """Accuracy over all samples, and the mean accuracy of the classes that occurred.

        Raises
        ------
        ValueError : nothing was taken in.
        """
        _check_seen(self.n_seen.sum().item())
        occurred = self.n_seen > 0
        per_class = self.n_right[occurred] / self.n_seen[occurred]
        return (self.n_right.sum() / self.n_seen.sum()).item(), per_class.mean().item()


def _samples(values: Tensor, mask: Tensor | None) -> Tensor:
    """The samples [n, F] float64 of [B, F, T] that count."""
    samples = values.detach().double().transpose(1, 2)
    return samples.flatten(0, 1) if mask is None else samples[mask[:, 0].bool()]


def _check_seen(n: float) -> None:
    if not n:
        raise ValueError("There are no samples to take a measure of.")
