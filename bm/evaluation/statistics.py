"""How sure an accuracy is: intervals, comparisons, and what chance alone would give.

Enters: hits or accuracies with the subject and the sentence that each belongs to. Leaves: intervals
and p values. The subject is the unit wherever people are generalised to; a segment never is: those
of one listener, or of one sentence, rise and fall together.

References
----------
.. [1] Efron 1987, Better bootstrap confidence intervals, doi:10.2307/2289144
.. [2] Hesterberg 2015, What teachers should know about the bootstrap,
       doi:10.1080/00031305.2015.1089789
.. [3] Owen 2007, The pigeonhole bootstrap, doi:10.1214/07-AOAS122
.. [4] Holm 1979, A simple sequentially rejective multiple test procedure, jstor.org/stable/4615733
.. [5] Cameron et al. 2011, Robust inference with multiway clustering,
       doi:10.1198/jbes.2010.07136
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy  # its parts are imported when they are used: statistics take long

LEVEL = 0.95
N_RESAMPLES = 2000
MIN_UNITS = 3
"""Fewer subjects, or sentences, say nothing of how much they differ."""


@dataclass(frozen=True)
class Interval:
    """An interval of confidence.

    Attributes
    ----------
    low, high : its ends.
    over : what was resampled: "subjects", "sentences" or "subjects and sentences".
    n_units : how many of these there are (the fewer of the two, if crossed).
    """

    low: float
    high: float
    over: str
    n_units: int

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two experiments.

    Attributes
    ----------
    n_subjects : in both.
    difference : mean of the first minus mean of the second.
    p : two-sided Wilcoxon signed-rank test.
    p_floor : the smallest p that so many subjects can give, whatever the difference.
    """

    n_subjects: int
    difference: float
    p: float
    p_floor: float


@dataclass(frozen=True)
class SeedVariance:
    """How much an accuracy owes to the seed: not how much it would differ in other people.

    Attributes
    ----------
    mean, deviation : over seeds; the deviation (n - 1) is NaN for one.
    n_seeds : how many.
    """

    mean: float
    deviation: float
    n_seeds: int


def hits(ranks: "pd.Series[float] | np.ndarray", k: int) -> np.ndarray:
    """[N] 1.0 where the truth is among the best `k`, else 0.0.

    The tie rule: a candidate that ties with the truth counts half a place (`bm.metrics`), so the
    truth among m equal candidates has the middle one of their ranks, and is a hit only if that is
    better than the k-th. Duplicates among the candidates can lower an accuracy, never raise it.
    """
    return (np.asarray(ranks, dtype=float) <= k - 1).astype(float)


def interval(
    values: np.ndarray,
    units: Sequence[object] | np.ndarray,
    over: str = "subjects",
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """BCa bootstrap interval [1]_ of the mean of all values, whole units drawn with replacement.

    Percentiles of few units are too narrow; they are taken further out, by the ratio of Student's
    to the normal distribution [2]_.

    Parameters
    ----------
    values : [N] hits, or other numbers with a mean worth knowing.
    units : [N] subject or sentence of each.
    over : what the units are called.
    level : share of such intervals that hold the true value.
    n_resamples, seed : of the bootstrap.

    Returns
    -------
    None if there are fewer than `MIN_UNITS` units.
    """
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    totals, counts = np.bincount(unit, weights=values), np.bincount(unit)
    n_units = len(counts)
    if n_units < MIN_UNITS:
        return None
    means = totals / counts
    if np.ptp(means) == 0:
        return Interval(float(means[0]), float(means[0]), over, n_units)
    found = scipy.stats.bootstrap(
        (totals, counts), _ratio, paired=True, vectorized=True, n_resamples=n_resamples,
        confidence_level=_expanded(level, n_units), method="BCa", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(float(found.low), float(found.high), over, n_units)


def crossed_interval(
    values: np.ndarray,
    subjects: Sequence[object] | np.ndarray,
    sentences: Sequence[object] | np.ndarray,
    level: float = LEVEL,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """The same for other people *and* other sentences: both are drawn, each on its own [3]_.

    Drawing twice counts what is neither a person's nor a sentence's three times, so that intervals
    would be too wide: draws are brought to the variance of two-way clusters [5]_.

    Returns
    -------
    None if there are fewer than `MIN_UNITS` subjects or sentences.
    """
    _, row = np.unique(np.asarray(subjects), return_inverse=True)
    _, column = np.unique(np.asarray(sentences), return_inverse=True)
    shape = int(row.max()) + 1, int(column.max()) + 1
    n_units = min(shape)
    if n_units < MIN_UNITS:
        return None
    totals, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(totals, (row, column), values)
    np.add.at(counts, (row, column), 1)
    estimate = totals.sum() / counts.sum()
    rng = np.random.default_rng(seed)
    weights = [rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) for n in shape]
    drawn_counts = ((weights[0] @ counts) * weights[1]).sum(axis=1)
    drawn_totals = ((weights[0] @ totals) * weights[1]).sum(axis=1)[drawn_counts > 0]
    drawn = drawn_totals / drawn_counts[drawn_counts > 0]
    if np.ptp(drawn) == 0:
        return Interval(float(estimate), float(estimate), "subjects and sentences", n_units)
    drawn = estimate + (drawn - estimate) * _two_way_deviation(totals, counts) / drawn.std()
    influence = [_influence(totals.sum(axis=axis), counts.sum(axis=axis)) for axis in (1, 0)]
    cubes, squares = (sum((one**power).sum() for one in influence) for power in (3, 2))
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    below = ((drawn < estimate).mean() + (drawn <= estimate).mean()) / 2
    bias = scipy.stats.norm.ppf(np.clip(below, 1 / n_resamples, 1 - 1 / n_resamples))
    tail = (1 - _expanded(level, n_units)) / 2
    shifted = bias + scipy.stats.norm.ppf([tail, 1 - tail])
    places = scipy.stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
    low, high = np.quantile(drawn, places)
    return Interval(float(low), float(high), "subjects and sentences", n_units)


def compare(first: Mapping[str, float], second: Mapping[str, float]) -> Comparison:
    """Wilcoxon test of the accuracies of the same subjects in two experiments.

    Parameters
    ----------
    first, second : accuracy of each subject, by name; those in one only are left out.

    Raises
    ------
    ValueError : no subject is in both.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        raise ValueError(
            f"Nothing to pair: none of the {len(first)} and {len(second)} subjects is in both "
            "experiments. Do they use the same studies?"
        )
    differences = np.array([first[name] - second[name] for name in common])
    n_changed = int((differences != 0).sum())
    p = float(scipy.stats.wilcoxon(differences).pvalue) if n_changed else 1.0
    return Comparison(len(common), float(differences.mean()), p, p_floor(len(common)))


def p_floor(n_subjects: int) -> float:
    """Smallest two-sided p of a signed-rank test: all change in one direction. 1.5e-8 for 27."""
    return min(1.0, 2.0 ** (1 - n_subjects))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values of a family of tests [4]_; their order stays."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1)
    return adjusted.tolist()


def p_of_null(value: float, null: np.ndarray) -> float:
    """Share of a permutation null that is at least `value`, the value itself counted in."""
    return float((1 + (np.asarray(null) >= value).sum()) / (1 + len(null)))


def seed_variance(accuracies: Sequence[float]) -> SeedVariance:
    """Mean and standard deviation of one experiment trained from several seeds."""
    values = np.asarray(accuracies, dtype=float)
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return SeedVariance(float(values.mean()), deviation, len(values))


def _ratio(totals: np.ndarray, counts: np.ndarray, axis: int = -1) -> Any:
    return totals.sum(axis=axis) / counts.sum(axis=axis)


def _expanded(level: float, n_units: int) -> float:
    """Level whose normal quantile is that of Student's t, unbiased variance included [2]_."""
    quantile = scipy.stats.t.ppf((1 + level) / 2, n_units - 1) * np.sqrt(n_units / (n_units - 1))
    return float(2 * scipy.stats.norm.cdf(quantile) - 1)


def _two_way_deviation(totals: np.ndarray, counts: np.ndarray) -> float:
    """Standard error of the ratio of all totals to all counts, both axes being clusters [5]_."""
    rest = totals - totals.sum() / counts.sum() * counts
    by_row, by_column = (float((rest.sum(axis=axis) ** 2).sum()) for axis in (1, 0))
    variance = max(by_row + by_column - float((rest**2).sum()), by_row, by_column)
    return float(np.sqrt(variance) / counts.sum())


def _influence(totals: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How much the ratio of sums falls if one unit is left out, about their mean."""
    without = (totals.sum() - totals) / np.maximum(counts.sum() - counts, 1)
    influence: np.ndarray = without.mean() - without
    return influence
