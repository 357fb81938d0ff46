"""Lags at which sensors follow a course: found where planted, and chance told from response."""

from typing import Any

import numpy as np
import pytest

from bm.core.messages import DataError
from bm.evaluation.lags import clean, evoked, lag_profile, pooled

RATE = 60.0


def follower(lag: float, strength: float, seed: int = 0, seconds: float = 120.0) -> Any:
    """Noise [C, T] of four sensors, and the course that one of them follows."""
    generator = np.random.default_rng(seed)
    n_samples = round(seconds * RATE)
    course = generator.standard_normal(n_samples)
    sensors = generator.standard_normal((4, n_samples))
    sensors[0] += strength * np.roll(course, round(lag * RATE))
    return sensors, course


@pytest.mark.parametrize("lag", [-0.4, 0.1, 0.5])
def test_peak_is_at_the_planted_lag(lag: float) -> None:
    sensors, course = follower(lag, 1.0)
    profile = lag_profile(clean(sensors.T, RATE), course, RATE, 1.0)
    assert profile.peak == pytest.approx(lag, abs=0.5 / RATE)
    assert profile.span[0] - 0.5 / RATE < lag < profile.span[1] + 0.5 / RATE
    assert profile.p < 1e-10


def test_explained_variance_is_that_of_the_signal() -> None:
    sensors, course = follower(0.1, 1.0)  # half of the variance of one sensor
    profile = lag_profile(clean(sensors.T, RATE), course, RATE, 1.0)
    assert profile.correlation**2 == pytest.approx(0.5, abs=0.05)


def test_p_is_uniform_without_a_response() -> None:
    p = []
    for seed in range(100):
        sensors, course = follower(0.1, 0.0, seed)
        p.append(lag_profile(clean(sensors.T, RATE), course, RATE, 1.0).p)
    assert 0.35 < np.mean(np.array(p) < 0.5) < 0.65
    assert np.mean(np.array(p) < 0.1) < 0.2
    assert min(p) > 1e-3


def test_huge_artefacts_and_dead_sensors_change_little() -> None:
    sensors, course = follower(0.2, 0.4)
    spoilt = np.concatenate([1e-13 * sensors, np.zeros((1, sensors.shape[1]))])
    spoilt[:4, 1000:1100] = 1e-3
    spoilt[2, 3000:] += 5e-7
    sound, broken = (
        lag_profile(clean(data.T, RATE), course, RATE, 1.0) for data in (sensors, spoilt)
    )
    assert broken.peak == sound.peak == pytest.approx(0.2, abs=0.5 / RATE)
    assert broken.values.max() > 0.7 * sound.values.max()
    assert broken.p < 1e-10


def test_what_no_recording_shows_may_show_in_all_together() -> None:
    profiles = []
    for seed in range(24):
        sensors, course = follower(0.1, 0.04, seed)
        profiles.append(lag_profile(clean(sensors.T, RATE), course, RATE, 1.0))
    assert sum(profile.is_found for profile in profiles) <= 1
    together = pooled(profiles)
    assert together.is_found
    assert together.peak == pytest.approx(0.1, abs=0.5 / RATE)


def test_evoked_response_is_the_mean_around_onsets() -> None:
    sensors = np.zeros((2, 600))
    sensors[0, [110, 210, 310]] = (1.0, 2.0, 6.0)
    onsets = np.array([0.0, 100, 200, 300, 599]) / RATE  # the first and last don't fit
    times, courses = evoked(sensors, onsets, RATE, -0.1, 0.4)
    assert courses[0, np.abs(times - 10 / RATE).argmin()] == pytest.approx(3.0)
    assert np.abs(courses).sum() == pytest.approx(3.0)


def test_too_short_or_flat_is_said() -> None:
    sensors, course = follower(0.1, 1.0, seconds=30)
    with pytest.raises(DataError, match="30 s are too short .* 44 s"):
        lag_profile(sensors, course, RATE, 1.0)
    with pytest.raises(DataError, match="flat"):
        lag_profile(*(np.zeros((2, 6000)), np.ones(6000)), RATE, 1.0)
