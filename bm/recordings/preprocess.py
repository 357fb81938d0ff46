"""Resample a recording chunk by chunk, filter it, and store it time first.

Resampling is windowed-sinc interpolation (julius), as published. Peak memory is a few chunks of the full
rate plus one sensor's course at the new rate, whatever the length of the recording.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import julius
import mne
import numpy as np
import torch
from numpy.lib.format import open_memmap

from bm.core.messages import DataError
from bm.recordings.sensors import Sensors
from bm.recordings.signal import DATA, Signal

logger = logging.getLogger(__name__)

VERSION = 1
CHUNK_BYTES = 32e6


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
                    f"dset.{name}={frequency} Hz: must lie between 0 and {nyquist} Hz, half of dset.sample_rate."
                )
        if self.bandpass is not None:
            low, high = self.bandpass
            if not 0 < low < high < nyquist:
                raise ValueError(f"dset.bandpass={self.bandpass}: needs 0 < low < high < {nyquist} Hz.")

    @property
    def key(self) -> dict[str, Any]:
        """What a cached result depends on, beside the recording."""
        return {"version": VERSION, **asdict(self)}


def preprocess(raw: mne.io.BaseRaw, how: Preprocessing, folder: Path, source: str) -> None:
    """Write the preprocessed data channels of `raw` into `folder` (read back with `Signal.load`).

    Raises
    ------
    DataError : no data channels, or a recording slower than `how.sample_rate`.
    """
    picks = mne.pick_types(raw.info, meg=True, eeg=True, ref_meg=False, exclude=[])
    if not len(picks):
        raise DataError(f"{source}: no MEG or EEG channels among {raw.info['ch_names'][:10]}.")
    old_rate, new_rate = _reduced_rates(raw.info["sfreq"], how.sample_rate, source)
    n_samples = int(raw.n_times) * new_rate // old_rate
    if not n_samples:
        raise DataError(f"{source}: only {raw.n_times} samples at {raw.info['sfreq']} Hz.")
    data = open_memmap(folder / DATA, mode="w+", dtype=np.float32, shape=(n_samples, len(picks)))
    broken = np.zeros(len(picks), dtype=bool)
    for begin, chunk, chunk_broken in _resampled_chunks(raw, picks, old_rate, new_rate):
        data[begin : begin + len(chunk)] = chunk[: n_samples - begin]
        broken |= chunk_broken
    _filter(data, how)
    flat = _is_flat(data)
    data[:, broken | flat] = 0.0
    data.flush()
    for mask, what in ((broken, "contain NaN or infinite values"), (flat & ~broken, "are flat")):
        if mask.any():
            names = [raw.info["ch_names"][index] for index in picks[mask]]
            logger.warning("%s: %d sensors %s and are left out: %s", source, mask.sum(), what, ", ".join(names[:8]))
    if (broken | flat).all():
        raise DataError(f"{source}: every sensor is flat or contains NaN: nothing to learn from.")
    sensors = Sensors.from_info(mne.pick_info(raw.info, picks), source).masked(broken | flat)
    Signal(data, float(how.sample_rate), sensors).describe(folder)


def _reduced_rates(old: float, new: float, source: str) -> tuple[int, int]:
    """Both rates over their greatest common divisor (1000 and 120 Hz give 25 and 3)."""
    if new > old:
        raise DataError(
            f"{source}: recorded at {old:g} Hz, which can't be raised to dset.sample_rate={new:g}. "
            f"Set dset.sample_rate to {old:g} or less."
        )
    millihertz = round(old * 1000), round(new * 1000)
    divisor = math.gcd(*millihertz)
    return millihertz[0] // divisor, millihertz[1] // divisor


def _resampled_chunks(
    raw: mne.io.BaseRaw, picks: np.ndarray, old_rate: int, new_rate: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (first new sample, [t, C] values, [C] sensors with non-finite values) chunk by chunk.

    Chunks begin at multiples of `old_rate` samples, where the interpolation starts over, and overlap by
    more than its reach, so that the seams don't show.
    """
    if old_rate == new_rate:
        resample, reach = torch.nn.Identity(), 0
    else:
        resample = julius.ResampleFrac(old_rate, new_rate)
        reach = resample._width + old_rate
    overlap = math.ceil(reach / old_rate) * old_rate
    n_steps = max(1, int(CHUNK_BYTES / (8 * len(picks)) / old_rate))
    step = max(n_steps * old_rate, overlap)
    for begin in range(0, raw.n_times, step):
        first = max(0, begin - overlap)
        last = min(raw.n_times, begin + step + overlap)
        values = raw.get_data(picks, first, last)
        finite = np.isfinite(values)
        broken = ~finite.all(axis=1)
        values[~finite] = 0.0
        resampled = resample(torch.from_numpy(values.astype(np.float32))).T.numpy()
        skip = (begin - first) * new_rate // old_rate
        length = min(step, raw.n_times - begin) * new_rate // old_rate
        yield begin * new_rate // old_rate, resampled[skip : skip + length], broken


def _filter(data: np.ndarray, how: Preprocessing) -> None:
    """Filter [T, C] in place, one sensor at a time."""
    if not (how.highpass or how.bandpass or how.notch):
        return
    for sensor in range(data.shape[1]):
        course = data[:, sensor].astype(np.float64)
        if how.highpass:
            tensor = torch.from_numpy(course)
            course = julius.highpass_filter(tensor, how.highpass / how.sample_rate).numpy()
        if how.notch:
            harmonics = np.arange(how.notch, how.sample_rate / 2, how.notch)
            course = mne.filter.notch_filter(course, how.sample_rate, harmonics, verbose="error")
        if how.bandpass:
            course = mne.filter.filter_data(course, how.sample_rate, *how.bandpass, verbose="error")
        data[:, sensor] = course


def _is_flat(data: np.ndarray) -> np.ndarray:
    """[C] true where a sensor never moves by more than rounding."""
    low, high = data.min(axis=0), data.max(axis=0)
    return (high - low) <= 1e-6 * np.maximum(np.abs(low), np.abs(high))
