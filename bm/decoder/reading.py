"""A new recording, read as those of training were: resampled, filtered, in the model's sensors."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
import torch
from torch import Tensor

from bm.core.messages import DataError
from bm.recordings import Preprocessing, Signal
from bm.recordings.montage import Matching, Montage, as_it_is, match_sensors
from bm.recordings.preprocess import preprocess
from bm.scaling import robust_scale

RESAMPLING_REACH = 24 / 0.945
"""Samples at the new rate, up to which interpolation looks ahead (julius: zeros over rolloff)."""


@dataclass(frozen=True)
class Window:
    """What the model sees at once.

    Attributes
    ----------
    n_times : samples of the brain signal.
    n_baseline : first samples whose mean is subtracted from each sensor; 0: none.
    n_delay : samples by which the brain is later than the sound.
    sample_rate : Hz.
    """

    n_times: int
    n_baseline: int
    n_delay: int
    sample_rate: float

    @property
    def n_heard(self) -> int:
        """Samples T of the stimulus that are told from one window."""
        return self.n_times - self.n_delay

    @property
    def duration(self) -> float:
        """Seconds of the stimulus that are told from one window."""
        return self.n_heard / self.sample_rate


@dataclass(frozen=True)
class Reading:
    """A recording in the sensors of a model.

    Attributes
    ----------
    name : of the recording.
    signal : [T, C] at the rate of training.
    matching : how these sensors came about; their positions.
    window : what the model sees at once.
    centre, scale : [C] median and interquartile range, of windows with their baseline subtracted.
    warm_up : seconds from the beginning that these were estimated on; None: the whole recording.
    reach : seconds by which resampling looks ahead.
    """

    name: str
    signal: Tensor
    matching: Matching
    window: Window
    centre: Tensor
    scale: Tensor
    warm_up: float | None
    reach: float

    @property
    def last_begin(self) -> float:
        """Latest moment in seconds at which a whole window begins."""
        return (len(self.signal) - self.window.n_times) / self.window.sample_rate

    def windows(self, begins: Sequence[float]) -> Tensor:
        """[B, C, T] baseline subtracted, of windows that begin at these seconds.

        Raises
        ------
        ValueError : a window isn't wholly within the recording.
        """
        return _windows(self.signal, _first_samples(self, begins), self.window)


def read(
    raw: "str | Path | mne.io.BaseRaw",
    how: Preprocessing,
    montages: Sequence[Montage],
    n_dimensions: int,
    window: Window,
    n_windows: int,
    warm_up: float | None = None,
) -> Reading:
    """Read a recording as those of training were.

    Parameters
    ----------
    raw : file that MNE can read, or the raw itself.
    how : as in training.
    montages : sensors of training; none: those of the recording are used as they are.
    n_dimensions : of sensor positions.
    window : what the model sees at once.
    n_windows : that the scale of each sensor is estimated on, evenly spread.
    warm_up : estimate it on the first so many seconds only.

    Raises
    ------
    DataError : the file can't be read, is too short, or has other sensors.
    """
    opened = raw if isinstance(raw, mne.io.BaseRaw) else _open(Path(raw).expanduser())
    name = next((Path(file).name for file in opened.filenames if file), "the recording")
    with tempfile.TemporaryDirectory(prefix="bm-") as folder:
        preprocess(opened, how, Path(folder), name)
        stored = Signal.load(Path(folder))
        data = np.array(stored.data)
    usable: np.ndarray = np.any(data, axis=0)  # what can't be used was set to 0
    if montages:
        matching = match_sensors(montages, stored.sensors, usable, n_dimensions, name)
    else:
        matching = as_it_is(stored.sensors, usable, n_dimensions)
    signal = torch.from_numpy(data @ matching.weights.T)
    n_known = len(signal) if warm_up is None else int(warm_up * how.sample_rate)
    if min(n_known, len(signal)) < window.n_times:
        raise DataError(
            f"{name}: {min(n_known, len(signal)) / how.sample_rate:.1f} s are shorter than one "
            f"window of the model ({window.n_times / how.sample_rate:.2f} s)."
        )
    last = min(n_known, len(signal)) - window.n_times
    first = torch.linspace(0, last, min(n_windows, last + 1)).long()
    centre, scale = robust_scale(
        _windows(signal, first, window).transpose(1, 2).flatten(0, 1).numpy()
    )
    reach = 0.0 if opened.info["sfreq"] == how.sample_rate else RESAMPLING_REACH / how.sample_rate
    return Reading(
        name, signal, matching, window, torch.from_numpy(centre), torch.from_numpy(scale),
        warm_up, reach,
    )  # fmt: skip


def _open(path: Path) -> "mne.io.BaseRaw":
    try:
        return mne.io.read_raw(path, preload=False, verbose="error")
    except Exception as error:  # each format's reader raises types of its own
        raise DataError(
            f"{path} can't be read as a recording ({type(error).__name__}: {error}). Is it there, "
            "whole, and of a format that MNE knows?"
        ) from error


def _first_samples(reading: Reading, begins: Sequence[float]) -> Tensor:
    first = torch.tensor(np.round(np.asarray(begins, float) * reading.window.sample_rate)).long()
    if len(first) and (
        first.min() < 0 or first.max() > len(reading.signal) - reading.window.n_times
    ):
        raise ValueError(
            f"{reading.name}: windows can begin from 0 to {reading.last_begin:.2f} s, not at "
            f"{min(begins):.2f} to {max(begins):.2f} s."
        )
    return first


def _windows(signal: Tensor, first: Tensor, window: Window) -> Tensor:
    meg = signal[first[:, None] + torch.arange(window.n_times)].transpose(1, 2)
    if window.n_baseline:
        meg = meg - meg[..., : window.n_baseline].mean(dim=-1, keepdim=True)
    return meg
