"""How loud a sound is over time, whether it lies in a file or in a channel of a recording.

Enters: event table or raw signal. Leaves: a course at the rate of the brain signal.
"""

from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd

from bm.recordings.sound import SAMPLE_RATE, read_sound

COMPRESSION = 0.3
"""Power that turns amplitude into something like loudness."""
CHUNK = 30.0
"""Seconds read at a time."""


def sound_loudness(events: pd.DataFrame, n_samples: int, sample_rate: float) -> np.ndarray | None:
    """Loudness [T] of all that was heard, 0 in silence; None without any sound file."""
    loudness = np.zeros(n_samples)
    n_read = 0
    sound: Any  # a named tuple of the table's columns
    for sound in events[events["kind"] == "sound"].itertuples():
        if not Path(sound.filepath).exists():
            continue
        n_read += 1
        begin = int(np.ceil(sound.start * sample_rate))
        end = min(n_samples, int((sound.start + sound.duration) * sample_rate))
        for first in range(begin, end, round(CHUNK * sample_rate)):
            last = min(end, first + round(CHUNK * sample_rate))
            edges = (np.arange(first, last + 1) - 0.5) / sample_rate - sound.start
            edges = edges.clip(0, sound.duration)
            offset = sound.offset + edges[0]
            samples = read_sound(sound.filepath, offset, edges[-1] - edges[0]).numpy()
            places = np.round((edges - edges[0]) * SAMPLE_RATE).astype(int)
            loudness[first:last] = _levels(samples[None], places)[0]
    return loudness if n_read else None


def channel_loudness(
    raw: "mne.io.BaseRaw", picks: np.ndarray, n_samples: int, sample_rate: float
) -> np.ndarray:
    """Loudness [k, T] of channels, whatever their offset; they are read a stretch at a time."""
    levels = np.zeros((len(picks), n_samples))
    edges = (np.arange(n_samples + 1) - 0.5) / sample_rate * raw.info["sfreq"]
    edges = np.round(edges).astype(int).clip(0, raw.n_times)
    step = round(CHUNK * sample_rate)
    for first in range(0, n_samples, step):
        part = edges[first : first + step + 1]
        before = max(int(part[0]) - 1, 0)  # one more: differences are taken
        samples = raw.get_data(picks, before, int(part[-1]))
        changes = np.diff(samples, axis=1, prepend=samples[:, :1])
        levels[:, first : first + step] = _levels(changes, part - before)
    return levels


def _levels(samples: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Loudness [k, n] of [k, N] samples between each of n + 1 edges and the next."""
    edges = edges.clip(0, samples.shape[1])
    power = np.zeros((len(samples), samples.shape[1] + 1))
    np.cumsum(np.square(samples, dtype=np.float64), axis=1, out=power[:, 1:])
    means = np.diff(power[:, edges], axis=1) / np.diff(edges).clip(1)
    loudness: np.ndarray = means.clip(0) ** (COMPRESSION / 2)
    return loudness
