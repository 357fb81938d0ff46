"""What spoils simulated recordings: blinks, heartbeats, bad sensors and huge jumps.

Enters: a clean simulated signal. Leaves: the same array, spoilt in place, in a way that the
generator of random numbers alone decides. Strengths are multiples of the ordinary amplitude.
"""

import math

import mne
import numpy as np

from bm.studies.simulated.headmodel import ORIGIN, dipole_fields

EYES = np.array([[-0.03, 0.075, 0.035], [0.03, 0.075, 0.035]])
HEART = ORIGIN + np.array([[-0.01, 0.0, -0.06]])
BLINKS_PER_MINUTE, BLINK_STRENGTH, BLINK_DURATION = 12, 8.0, 0.35
BEATS_PER_MINUTE, BEAT_STRENGTH, BEAT_DURATION = 66, 1.5, 0.1
N_NOISY, NOISY_STRENGTH = 2, 15.0
N_FLAT = 1
JUMPS_PER_MINUTE = 4
JUMP_DURATIONS = (0.1, 1.0)
LOG_JUMP_STRENGTHS = (math.log(1000.0), math.log(2500.0))
MAX_JUMPING = 3


def bad_sensors(n_sensors: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the noisy and of the flat sensors of a recording; at least one of each."""
    n_noisy = min(N_NOISY, max(1, n_sensors // 20))
    chosen = rng.choice(n_sensors, n_noisy + N_FLAT, replace=False)
    return np.sort(chosen[:n_noisy]), np.sort(chosen[n_noisy:])


def add_artefacts(
    data: np.ndarray,
    info: "mne.Info",
    level: float,
    noisy: np.ndarray,
    flat: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Spoil a signal in place.

    Parameters
    ----------
    data : [T, C] float32 in T or V.
    info : its sensors.
    level : ordinary amplitude (root mean square) of a sensor, in T or V.
    noisy, flat : indices of bad sensors.
    rng : source of everything random.
    """
    n_samples, n_sensors = data.shape
    rate = float(info["sfreq"])
    minutes = n_samples / rate / 60
    _add_pulses(
        data,
        _eye_field(info) * level * BLINK_STRENGTH,
        _blink(rate),
        _poisson(rng, n_samples, BLINKS_PER_MINUTE * minutes),
        rng,
    )
    beats = np.cumsum(
        rng.normal(60 / BEATS_PER_MINUTE, 0.05, int(BEATS_PER_MINUTE * minutes) + 1) * rate
    ).astype(int)
    _add_pulses(data, _heart_field(info) * level * BEAT_STRENGTH, _beat(rate), beats, rng)
    data[:, noisy] += (
        level * NOISY_STRENGTH * rng.standard_normal((n_samples, len(noisy)), np.float32)
    )
    for onset in _poisson(rng, n_samples, JUMPS_PER_MINUTE * minutes):
        stop = onset + int(rng.uniform(*JUMP_DURATIONS) * rate)
        jumping = rng.choice(
            n_sensors, rng.integers(1, min(MAX_JUMPING, n_sensors) + 1), replace=False
        )
        heights = np.exp(rng.uniform(*LOG_JUMP_STRENGTHS, len(jumping))) * rng.choice(
            [-1, 1], len(jumping)
        )
        data[onset:stop, jumping] += (heights * level).astype(np.float32)
    data[:, flat] = 0.0


def _poisson(rng: np.random.Generator, n_samples: int, expected: float) -> np.ndarray:
    return np.sort(rng.integers(0, n_samples, rng.poisson(expected)))


def _add_pulses(
    data: np.ndarray,
    field: np.ndarray,
    course: np.ndarray,
    onsets: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Add the pulse [t] with the topography `field` [C] at each onset, in varying size."""
    pulse = (course[:, None] * field).astype(np.float32)
    for onset, size in zip(onsets, rng.lognormal(0, 0.2, len(onsets)), strict=True):
        part = data[onset : onset + len(pulse)]
        part += np.float32(size) * pulse[: len(part)]


def _eye_field(info: "mne.Info") -> np.ndarray:
    """[C] both eyes' dipoles turned up, largest value 1."""
    return _largest_one(dipole_fields(info, EYES)[:, 2].sum(axis=0))


def _heart_field(info: "mne.Info") -> np.ndarray:
    """[C] a source below the head, largest value 1."""
    return _largest_one(dipole_fields(info, HEART)[0, 0])


def _largest_one(field: np.ndarray) -> np.ndarray:
    return field / np.abs(field).max()


def _blink(rate: float) -> np.ndarray:
    return np.hanning(int(BLINK_DURATION * rate))


def _beat(rate: float) -> np.ndarray:
    """A steep positive peak between two small negative ones."""
    times = np.linspace(-0.5, 0.5, int(BEAT_DURATION * rate) + 1)
    return (1 - (times / 0.12) ** 2) * np.exp(-0.5 * (times / 0.12) ** 2)
