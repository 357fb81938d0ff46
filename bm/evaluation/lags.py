"""Lag at which the signals of many sensors follow a course, and whether it is more than chance.

Enters: signals, and one course such as the loudness of a sound, at the same rate. Leaves: how much
they share at each lag, against what they share where no lag is a real one.

Plain cross-correlation is taken rather than a ridge regression over lags (a TRF): once sensors are
decorrelated it finds weaker responses, and it has no penalty to choose.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, signal

from bm.core.messages import DataError

BAND = (1.0, 15.0)
"""Hz in which responses to continuous speech lie."""
MIN_RATE = 40.0
FIRST_CLAMP, LAST_CLAMP = 20.0, 5.0
"""Interquartile ranges kept before and after filtering: a filter smears a jump, so it is cut before
as well."""
SHRINKAGE = 0.01
"""Share of the mean variance added to each component: sensors that are copies stay harmless."""
GROUP = 16
MIN_WINDOWS = 20
SIGNIFICANT = 1e-3


@dataclass(frozen=True)
class LagProfile:
    """What signals and a course share at each lag.

    Attributes
    ----------
    lags : [L] seconds by which the signals follow the course.
    values : [L] share of the course's variance that the sensors together explain.
    far : [N] the same where the lag is too long, either way, for anything but chance.
    """

    lags: np.ndarray
    values: np.ndarray
    far: np.ndarray

    @property
    def peak(self) -> float:
        """Lag of the highest value in seconds."""
        return float(self.lags[self.values.argmax()])

    @property
    def span(self) -> tuple[float, float]:
        """Lags around the peak that are at least half as high, from the level of chance."""
        level = np.median(self.far)
        low = self.values < level + (self.values.max() - level) / 2
        top = int(self.values.argmax())
        before, after = np.flatnonzero(low[:top]), np.flatnonzero(low[top:])
        first = before[-1] + 1 if len(before) else 0
        last = top + after[0] - 1 if len(after) else len(low) - 1
        return float(self.lags[first]), float(self.lags[last])

    @property
    def correlation(self) -> float:
        """Multiple correlation of sensors and course at the peak."""
        return float(np.sqrt(self.values.max().clip(0, 1)))

    @property
    def chance(self) -> float:
        """Height that the highest of as many lags typically has by chance."""
        return float(np.median(self._highest_by_chance()))

    @property
    def p(self) -> float:
        """Probability of so high a peak, at any of the lags, by chance.

        Maxima follow a Gumbel distribution; it is fitted to the quartiles of stretches of `far`, so
        that a real coincidence in one of them (a sentence heard twice) does no harm.
        """
        low, middle, high = np.quantile(self._highest_by_chance(), (0.25, 0.5, 0.75))
        scale = (high - low) / np.log(np.log(4) / np.log(4 / 3))
        if not scale > 0:
            return 1.0
        place = middle + scale * np.log(np.log(2))
        return float(-np.expm1(-np.exp(-(self.values.max() - place) / scale)))

    @property
    def is_found(self) -> bool:
        """Whether the peak is more than chance."""
        return self.p < SIGNIFICANT

    def _highest_by_chance(self) -> np.ndarray:
        """Maxima of the stretches of `far` that are as long as the profile."""
        length = len(self.lags)
        n_windows = len(self.far) // length
        return self.far[: n_windows * length].reshape(n_windows, length).max(axis=1)


def clean(data: np.ndarray, sample_rate: float) -> np.ndarray:
    """Scale sensors robustly, clamp, and filter to `BAND`; [T, C] to [C', T] float32.

    Huge artefacts end at a few interquartile ranges; sensors without a signal are dropped.
    """
    courses = np.empty((data.shape[1], len(data)), dtype=np.float32)
    kept = np.zeros(data.shape[1], dtype=bool)
    for first in range(0, data.shape[1], GROUP):
        group = slice(first, first + GROUP)
        values, has_signal = _scaled(data[:, group].T.astype(np.float64), FIRST_CLAMP)
        values, still_has_signal = _scaled(_filtered(values, sample_rate), LAST_CLAMP)
        courses[group] = values
        kept[group] = has_signal & still_has_signal
    return courses[kept]


def lag_profile(
    sensors: np.ndarray, course: np.ndarray, sample_rate: float, reach: float
) -> LagProfile:
    """Cross-correlate decorrelated sensors with a course.

    Each circular shift of the course is a draw from chance unless it is a short one, so that one
    Fourier transform gives the profile and all that it is judged against.

    Parameters
    ----------
    sensors : [C, T] as `clean` returns them.
    course : [T].
    sample_rate : Hz.
    reach : seconds to either side that a real lag may have.

    Raises
    ------
    DataError : too short to know chance, or nothing happens in the course.
    """
    n_samples, n_reach = len(course), round(reach * sample_rate)
    n_needed = 4 * n_reach + MIN_WINDOWS * (2 * n_reach + 1)
    if n_samples < n_needed:
        raise DataError(
            f"{n_samples / sample_rate:.0f} s are too short to tell a response from chance: "
            f"{n_needed / sample_rate:.0f} s are needed for reach={reach:g}."
        )
    course = _filtered(course - course.mean(), sample_rate)
    norm = np.linalg.norm(course)
    if not norm > 0 or not len(sensors):
        raise DataError("nothing to compare: the sound, the words, or all sensors are flat.")
    spectrum = np.conj(fft.rfft(course / norm))
    shared = np.zeros(n_samples)
    directions = _decorrelating(sensors)
    for first in range(0, len(directions), GROUP):
        components = directions[first : first + GROUP] @ sensors
        products = fft.rfft(components, axis=1) * spectrum
        shared += (fft.irfft(products, n_samples, axis=1) ** 2).sum(axis=0)
    shared /= n_samples
    near = np.arange(-n_reach, n_reach + 1)
    return LagProfile(near / sample_rate, shared[near], shared[2 * n_reach : -2 * n_reach])


def pooled(profiles: Sequence[LagProfile]) -> LagProfile:
    """Sum profiles of many recordings, each in units of its own chance.

    What no single recording shows may show in all of them.
    """
    n_far = min(len(profile.far) for profile in profiles)
    values, far = np.zeros(len(profiles[0].lags)), np.zeros(n_far)
    for profile in profiles:
        level, spread = profile.far.mean(), profile.far.std()
        values += (profile.values - level) / spread
        far += (profile.far[:n_far] - level) / spread
    return LagProfile(profiles[0].lags, values, far)


def evoked(
    sensors: np.ndarray, onsets: np.ndarray, sample_rate: float, first: float, last: float
) -> tuple[np.ndarray, np.ndarray]:
    """Average the sensors around onsets.

    Parameters
    ----------
    sensors : [C, T].
    onsets : seconds; those too near to an end of the recording are left out.
    sample_rate : Hz.
    first, last : seconds from the onset.

    Returns
    -------
    Times [L] in seconds, and the average [C, L].
    """
    samples = np.arange(round(first * sample_rate), round(last * sample_rate) + 1)
    centres = np.round(onsets * sample_rate).astype(int)
    fits = (centres + samples[0] >= 0) & (centres + samples[-1] < sensors.shape[1])
    total = np.zeros((len(sensors), len(samples)))
    for centre in centres[fits]:
        total += sensors[:, centre + samples[0] : centre + samples[-1] + 1]
    return samples / sample_rate, total / max(int(fits.sum()), 1)


def _scaled(values: np.ndarray, clamp: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre [C, T] and scale it by interquartile ranges; and which rows have one."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
    spread = high - low
    has_signal = spread > 0
    scaled = (values - middle[:, None]) / np.where(has_signal, spread, 1.0)[:, None]
    return scaled.clip(-clamp, clamp), has_signal


def _filtered(values: np.ndarray, sample_rate: float) -> np.ndarray:
    """Without delay, in `BAND`, along the last axis."""
    sections = signal.butter(2, BAND, "bandpass", fs=sample_rate, output="sos")
    filtered: np.ndarray = signal.sosfiltfilt(sections, values, axis=-1)
    return filtered


def _decorrelating(sensors: np.ndarray) -> np.ndarray:
    """Rows [C, C] that turn [C, T] into uncorrelated components of variance 1."""
    covariance = (sensors @ sensors.T).astype(np.float64) / sensors.shape[1]
    variances, directions = np.linalg.eigh(covariance)
    scales = np.sqrt(variances.clip(0) + SHRINKAGE * variances.mean())
    rows: np.ndarray = (directions / scales).T.astype(np.float32)
    return rows
