"""Statistics: intervals that cover what they should, tests that agree with tables."""

import numpy as np
import pytest
from scipy import stats

from bm.evaluation.statistics import (
    compare,
    crossed_interval,
    hits,
    holm,
    interval,
    p_floor,
    p_of_null,
    seed_variance,
)

N_REPETITIONS = 500


@pytest.mark.parametrize("n_subjects", [12, 20])
def test_intervals_over_subjects_cover_the_truth_in_95_of_100_studies(n_subjects):
    """500 studies: subjects' true accuracies follow a skewed distribution of known mean."""
    rng = np.random.default_rng(1)
    truth, covered = 3 / 8, 0
    for seed in range(N_REPETITIONS):
        accuracy = rng.beta(3, 5, n_subjects)
        n_segments = rng.integers(30, 60, n_subjects)
        values = [rng.random(n) < p for n, p in zip(n_segments, accuracy, strict=True)]
        subjects = np.repeat(np.arange(n_subjects), n_segments)
        found = interval(np.concatenate(values).astype(float), subjects, n_resamples=600, seed=seed)
        covered += truth in found
    assert 0.92 <= covered / N_REPETITIONS <= 0.98


def test_crossed_intervals_cover_the_truth_for_other_people_and_other_sentences():
    rng = np.random.default_rng(2)
    n_subjects, n_sentences, n_words = 8, 10, 4
    subjects, sentences = (
        np.repeat(index.ravel(), n_words) for index in np.indices((n_subjects, n_sentences))
    )
    crossed = over_subjects = 0
    for seed in range(N_REPETITIONS):
        chance = 0.4 + rng.normal(0, 0.12, n_subjects)[subjects]
        chance += rng.normal(0, 0.12, n_sentences)[sentences]
        values = (rng.random(len(chance)) < chance).astype(float)
        crossed += 0.4 in crossed_interval(values, subjects, sentences, n_resamples=600, seed=seed)
        over_subjects += 0.4 in interval(values, subjects, n_resamples=600, seed=seed)
    assert 0.92 <= crossed / N_REPETITIONS <= 0.98
    assert over_subjects / N_REPETITIONS < crossed / N_REPETITIONS - 0.03  # sentences ignored


def test_interval_of_many_units_is_that_of_the_normal_distribution():
    rng = np.random.default_rng(0)
    values = rng.normal(0.5, 0.1, 400)
    found = interval(values, np.arange(400), n_resamples=4000)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.0012)
    assert found.high == pytest.approx(values.mean() + half, abs=0.0012)
    assert found == interval(values, np.arange(400), n_resamples=4000)


def test_units_weigh_by_their_segments():
    values = np.array([1.0] * 90 + [0.0] * 10 + [0.5] * 10)
    subjects = ["a"] * 90 + ["b"] * 10 + ["c"] * 10
    found = interval(values, subjects)
    assert found.low < values.mean() < found.high
    assert found.n_units == 3


@pytest.mark.parametrize("n_subjects", [1, 2])
def test_fewer_than_three_units_have_no_interval(n_subjects):
    subjects = np.arange(20) % n_subjects
    assert interval(np.ones(20), subjects) is None
    assert crossed_interval(np.ones(20), subjects, np.arange(20)) is None


def test_equal_subjects_have_an_interval_of_one_point():
    found = interval(np.full(12, 0.25), np.arange(12) % 4)
    assert (found.low, found.high) == (0.25, 0.25)
    crossed = crossed_interval(np.full(12, 0.25), np.arange(12) % 3, np.arange(12) // 3)
    assert (crossed.low, crossed.high) == (0.25, 0.25)


def test_comparison_is_the_exact_signed_rank_test():
    first = {f"s{n}": 0.5 + 0.01 * n for n in range(1, 9)}
    second = {f"s{n}": 0.5 for n in range(1, 9)}
    found = compare(first, {**second, "another": 0.1})
    assert found.n_subjects == 8
    assert found.difference == pytest.approx(0.045)
    assert found.p == pytest.approx(2 / 2**8)  # all in one direction: the floor
    assert found.p == pytest.approx(found.p_floor)
    rng = np.random.default_rng(0)
    a, b = rng.random(15), rng.random(15)
    names = [f"s{n}" for n in range(15)]
    expected = stats.wilcoxon(a, b).pvalue
    both = dict(zip(names, a, strict=True)), dict(zip(names, b, strict=True))
    assert compare(*both).p == pytest.approx(expected)


def test_nothing_that_changes_is_no_difference_and_nothing_in_common_is_an_error():
    same = {"a": 0.1, "b": 0.2}
    assert compare(same, same).p == 1.0
    with pytest.raises(ValueError, match="same studies"):
        compare({"a": 0.1}, {"b": 0.1})


def test_attainable_p_of_27_subjects():
    assert p_floor(27) == pytest.approx(1.49e-8, rel=0.01)
    assert p_floor(1) == 1.0


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_permutation_p_is_never_zero():
    null = np.arange(99) / 100
    assert p_of_null(2.0, null) == 0.01
    assert p_of_null(0.0, null) == 1.0
    assert p_of_null(0.98, null) == 0.02


def test_seeds_have_a_deviation_of_their_own():
    found = seed_variance([0.70, 0.71, 0.72])
    assert (found.mean, found.deviation) == (pytest.approx(0.71), pytest.approx(0.01))
    assert np.isnan(seed_variance([0.7]).deviation)


def test_ties_buy_no_hits():
    assert hits(np.array([9.0, 9.5, 0.0, 10.0]), 10).tolist() == [1.0, 0.0, 1.0, 0.0]
