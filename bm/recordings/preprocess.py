"""Resample a recording chunk by chunk, filter it, and store it time first.

Enters: an MNE raw, which need not fit into memory. Leaves: the files of a `Signal`.
Resampling is windowed-sinc interpolation (julius), as published. Peak memory is a few chunks at the
full rate plus a few sensors at the new one, whatever the length of the recording.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import julius
import mne
import numpy as np
import torch

from bm.core.messages import DataError
from bm.recordings.resample import Resampler
from bm.recordings.sensors import Sensors, listed
from bm.recordings.signal import DATA, Signal

logger = logging.getLogger(__name__)

VERSION = 6
CHUNK_BYTES = 16e6
FILTER_GROUP = 16
"""Sensors filtered together: one cache line of the time-first array."""
MAX_DRIFT = 1e-3
"""Seconds that the clock may be off at the end of a recording with an odd sample rate."""


@dataclass(frozen=True)
class Preprocessing:
    """How a raw recording becomes a `Signal`.

    Attributes
    ----------
    sample_rate : Hz of the result; raising the rate is refused.
    highpass : Hz; subtracts a copy low-passed at that frequency. 0: off, as published.
    bandpass : (low, high) Hz, zero-phase FIR; None: off.
    notch : Hz of the power line, removed with its harmonics; None: off.
    """

    sample_rate: float = 120.0
    highpass: float = 0.0
    bandpass: tuple[float, float] | None = None
    notch: float | None = None

    def __post_init__(self) -> None:
        nyquist = self.sample_rate / 2
        for name, frequency in (("highpass", self.highpass), ("notch", self.notch or 0.0)):
            if not 0 <= frequency < nyquist:
                raise ValueError(
                    f"dset.{name}={frequency} Hz: must lie between 0 and {nyquist} Hz, "
                    "half of dset.sample_rate."
                )
        if self.bandpass is not None:
            low, high = self.bandpass
            if not 0 < low < high < nyquist:
                raise ValueError(
                    f"dset.bandpass={self.bandpass}: needs 0 < low < high < {nyquist} Hz."
                )

    @property
    def key(self) -> dict[str, Any]:
        """What a cached result depends on, beside the recording."""
        return {"version": VERSION, **asdict(self)}


def preprocess(raw: "mne.io.BaseRaw", how: Preprocessing, folder: Path, source: str) -> None:
    """Write the preprocessed data channels of `raw` into `folder` (read back with `Signal.load`).

    Raises
    ------
    DataError : no usable data channels, a recording slower than `how.sample_rate`, or one that
        cannot be read to its end.
    """
    picks = mne.pick_types(raw.info, meg=True, eeg=True, ref_meg=False, exclude=[])
    if not len(picks):
        raise DataError(f"{source}: no MEG or EEG channels among {raw.info['ch_names'][:10]}.")
    ratio = _rate_ratio(raw.info["sfreq"], how.sample_rate, int(raw.n_times), source)
    n_samples = int(int(raw.n_times) / ratio)
    if not n_samples:
        raise DataError(
            f"{source}: only {raw.n_times} samples at {raw.info['sfreq']} Hz in {_files(raw)}."
        )
    health = _Health(len(picks))
    with open(folder / DATA, "wb") as file:  # a map of a file not yet written dies on a full disk
        _write_header(file, (n_samples, len(picks)))
        for chunk in _resampled_chunks(raw, picks, ratio, health, source):
            file.write(chunk.data)
    data = np.load(folder / DATA, mmap_mode="r+")
    unusable = _check_sensors(raw, picks, health, source)
    _filter(data, how)
    data[:, unusable] = 0.0
    data.flush()
    sensors = Sensors.from_info(mne.pick_info(raw.info, picks, verbose="error"), source).masked(
        unusable
    )
    Signal(data, float(how.sample_rate), sensors).describe(folder)


def _rate_ratio(old: float, new: float, n_times: int, source: str) -> Fraction:
    """Old rate over new (1000 and 120 Hz: 25/3), the fraction that interpolation steps by.

    An odd rate such as 600.615 Hz has no small fraction, and interpolation needs memory by its
    size: a smaller one is taken that keeps time to `MAX_DRIFT` up to the end of the recording.
    """
    if new > old:
        raise DataError(
            f"{source}: recorded at {old:g} Hz, which can't be raised to dset.sample_rate={new:g}. "
            f"Set dset.sample_rate to {old:g} or less."
        )
    exact = Fraction(round(old * 1000), round(new * 1000))
    limit, ratio = 1000, exact.limit_denominator(1000)
    while abs(ratio / exact - 1) * (n_times / old) > MAX_DRIFT:
        limit *= 2
        ratio = exact.limit_denominator(limit)
    return ratio


def _resampled_chunks(
    raw: "mne.io.BaseRaw", picks: np.ndarray, ratio: Fraction, health: "_Health", source: str
) -> Iterator[np.ndarray]:
    """Yield [t, C] resampled values, one chunk after the other; `health` sees the raw ones.

    Beyond its ends, the recording is as it is there.
    """
    resample, n_times = Resampler(ratio), int(raw.n_times)
    n_periods = -(-n_times // resample.period)
    at_once = max(1, int(CHUNK_BYTES / (8 * len(picks)) / resample.period))
    n_left = int(n_times / ratio)
    for begin in range(0, n_periods, at_once):
        end = min(n_periods, begin + at_once)
        first, last = begin * resample.period, end * resample.period
        values = _read(raw, picks, first - resample.reach, last + resample.reach, source)
        health.clean(values)
        resampled = resample(values)[:n_left]
        n_left -= len(resampled)
        yield resampled


def _read(
    raw: "mne.io.BaseRaw", picks: np.ndarray, first: int, last: int, source: str
) -> np.ndarray:
    """[C, last - first] values; the first and the last one go on beyond the recording."""
    begin, end = max(0, first), min(int(raw.n_times), last)
    try:
        values = raw.get_data(picks, begin, end).astype(np.float32)
    except Exception as error:  # each format's reader raises types of its own
        rate = raw.info["sfreq"]
        raise DataError(
            f"{source}: cannot read {begin / rate:.1f} to {end / rate:.1f} s of {_files(raw)} "
            f"({type(error).__name__}: {error}). Is the file truncated or not fully downloaded?"
        ) from error
    return np.pad(values, ((0, 0), (begin - first, last - end)), mode="edge")


def _files(raw: "mne.io.BaseRaw") -> str:
    return ", ".join(str(file) for file in raw.filenames if file) or "memory"


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    """Begin an .npy file of float32 values."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


class _Health:
    """Which of `n_sensors` sensors hold a signal, from all that was read of them."""

    def __init__(self, n_sensors: int):
        self.broken = np.zeros(n_sensors, dtype=bool)
        self.low = np.full(n_sensors, np.inf, dtype=np.float32)
        self.high = np.full(n_sensors, -np.inf, dtype=np.float32)

    def clean(self, values: np.ndarray) -> None:
        """Take note of [C, t] raw values; what isn't finite becomes 0, in place."""
        low, high = values.min(axis=1), values.max(axis=1)  # NaN where one is
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        broken = ~(np.isfinite(low) & np.isfinite(high))
        if broken.any():
            self.broken |= broken
            values[broken] = np.nan_to_num(values[broken], nan=0.0, posinf=0.0, neginf=0.0)

    @property
    def flat(self) -> np.ndarray:
        """[C] true where every value was the same."""
        return self.low == self.high


def _check_sensors(
    raw: "mne.io.BaseRaw", picks: np.ndarray, health: _Health, source: str
) -> np.ndarray:
    """Count and log the sensors that can't be used, and return which [C]; raise if none is left."""
    names = np.array(raw.info["ch_names"])[picks]
    marked = np.isin(names, raw.info["bads"])
    for mask, what in (
        (marked, "are marked bad"),
        (health.broken & ~marked, "contain NaN or infinite values"),
        (health.flat & ~marked, "are flat"),
    ):
        if mask.any():
            logger.warning(
                "%s: %d of %d sensors %s and are left out: %s",
                source,
                mask.sum(),
                len(picks),
                what,
                listed(names[mask].tolist()),
            )
    unusable = marked | health.broken | health.flat
    if unusable.all():
        raise DataError(
            f"{source}: every sensor is marked bad, flat or contains NaN: nothing to learn from."
        )
    return unusable


def _filter(data: np.ndarray, how: Preprocessing) -> None:
    """Filter [T, C] in place, a few sensors at a time."""
    if not (how.highpass or how.bandpass or how.notch):
        return
    for first in range(0, data.shape[1], FILTER_GROUP):
        courses = data[:, first : first + FILTER_GROUP].T.astype(np.float64)
        if how.highpass:
            tensor = torch.from_numpy(courses)
            courses = julius.highpass_filter(tensor, how.highpass / how.sample_rate).numpy()
        if how.notch:
            harmonics = np.arange(how.notch, how.sample_rate / 2, how.notch)
            courses = mne.filter.notch_filter(courses, how.sample_rate, harmonics, verbose="error")
        if how.bandpass:
            courses = mne.filter.filter_data(
                courses, how.sample_rate, *how.bandpass, verbose="error"
            )
        data[:, first : first + FILTER_GROUP] = courses.T
