"""Made-up data of the paper's shape: signals, words, and features along them. Needs torch alone."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bm.segments.gather import SegmentGatherer, Stimuli, Windows
from bm.segments.store import SignalStore

RATE = 120.0
TMIN, TMAX = -0.5, 2.5
N_TIMES = 361
N_BASELINE = 61
DELAY = 0.15
STRIDE = 0.5
PAPER_HOURS, PAPER_RECORDINGS = 56.2, 196
SIZES = {"mel": 120, "wav2vec": 1024}
FRAME_RATES = {"mel": 125.0, "wav2vec": 50.0}
WORDS_PER_SECOND = 2.5


@dataclass(frozen=True)
class MadeSignal:
    """A recording of noise [T, C] with artefacts."""

    data: np.ndarray


@dataclass(frozen=True)
class MadeFeature:
    """What the scaler asks of a feature."""

    name: str
    normalizable: bool = True


@dataclass(frozen=True)
class Made:
    """Recordings of noise, all hearing the same story.

    Attributes
    ----------
    signals : one per recording.
    subjects : index of each recording's subject.
    frames : [n, F] features of the story, row 0 is silence.
    feature : their name.
    onsets : seconds at which words begin, of 0.3 s each.
    """

    signals: list[MadeSignal]
    subjects: list[int]
    frames: np.ndarray
    feature: str
    onsets: np.ndarray

    @property
    def n_samples(self) -> int:
        """Length of each recording."""
        return len(self.signals[0].data)

    @property
    def timeline(self) -> np.ndarray:
        """[T] row of `frames` that each sample of a recording sees."""
        rows = np.arange(self.n_samples) / RATE * FRAME_RATES[self.feature]
        return 1 + np.round(rows).astype(np.int32).clip(0, len(self.frames) - 2)

    @property
    def mask(self) -> np.ndarray:
        """[T] bool, where a word is heard."""
        mask = np.zeros(self.n_samples, dtype=bool)
        for onset in self.onsets:
            mask[round(onset * RATE) : round((onset + 0.3) * RATE)] = True
        return mask


def make(
    hours: float,
    n_sensors: int,
    n_subjects: int,
    feature: str = "mel",
    n_recordings: int | None = None,
) -> Made:
    """So many recordings of `hours` together; None: as many as if they were the paper's."""
    n_recordings = n_recordings or max(1, round(PAPER_RECORDINGS * hours / PAPER_HOURS))
    n_samples = int(hours * 3600 / n_recordings * RATE)
    generator = torch.Generator().manual_seed(0)
    signals = []
    for _ in range(n_recordings):
        data = torch.randn(n_samples, n_sensors, generator=generator)
        data[:: n_samples // 5 + 1] *= 100  # jumps, as in any recording
        signals.append(MadeSignal((1e-13 * data).numpy()))
    n_frames = int(n_samples / RATE * FRAME_RATES[feature]) + 1
    frames = torch.randn(n_frames, SIZES[feature], generator=generator).numpy()
    onsets = np.arange(0.1, n_samples / RATE - 0.5, 1 / WORDS_PER_SECOND)
    subjects = [index % n_subjects for index in range(n_recordings)]
    return Made(signals, subjects, frames, feature, onsets)


def gatherer(
    made: Made, residency: str = "host", device: str = "cpu", storage: str = "fp32"
) -> SegmentGatherer:
    """Segments every half second of all recordings."""
    n_recordings = len(made.signals)
    store = SignalStore(made.signals, residency, device, storage)
    step = round(STRIDE * RATE)
    first = torch.arange(0, made.n_samples - N_TIMES, step)
    windows = Windows(
        recording=torch.arange(n_recordings).repeat_interleave(len(first)),
        subject=torch.tensor(made.subjects).repeat_interleave(len(first)),
        layout=torch.zeros(n_recordings * len(first), dtype=torch.long),
        first=first.repeat(n_recordings),
    )
    stimuli = Stimuli(
        [MadeFeature(made.feature)],
        [torch.from_numpy(made.frames).to(store.home, store.dtype)],
        [torch.from_numpy(np.tile(made.timeline, n_recordings)).to(store.home)],
        torch.from_numpy(np.tile(made.mask, n_recordings)).to(store.home),
    )
    return SegmentGatherer(windows, store, stimuli, N_TIMES, N_BASELINE)


def layout(n_sensors: int) -> Tensor:
    """Positions [1, C, 2] of sensors spread over the head."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, n_sensors, 2, generator=generator)
