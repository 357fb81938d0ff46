"""The plain reference of a warm start: files read one segment at a time."""

from pathlib import Path

import numpy as np
import torch

from scripts.benchmarks.parts.made import N_TIMES, RATE, STRIDE, Made, MadeSignal, make
from scripts.benchmarks.parts.plain import PlainData

FEATURE = "mel"
N_FITTED = 200
"""Segments of each recording that its scale is estimated on."""


def prepare(folder: Path, hours: float, n_recordings: int, n_sensors: int) -> None:
    """Write recordings of noise, as a first start would have left them."""
    made = make(hours, n_sensors, n_recordings, FEATURE, n_recordings)
    PlainData(made, np.empty((0, 2), int), folder)
    for index, signal in enumerate(made.signals):
        np.save(folder / f"{index}_signal.npy", signal.data)
    np.save(folder / "onsets.npy", made.onsets)


def first_batch(folder: str, batch_size: int, n_threads: int) -> torch.Tensor:
    """Scaled brain signals [B, C, T] of the first batch; its features are assembled, too."""
    torch.set_num_threads(n_threads)
    made = reopen(Path(folder))
    n_recordings = len(made.signals)
    firsts = np.arange(0, made.n_samples - N_TIMES, round(STRIDE * RATE))
    generator = np.random.default_rng(0)
    chosen = [generator.choice(firsts, min(N_FITTED, len(firsts)), False) for _ in made.signals]
    places = [(index, first) for index, some in enumerate(chosen) for first in some]
    data = PlainData(made, np.array(places), Path(folder))
    segments = [data[row] for row in range(len(places))]
    quartiles = []
    for index in range(n_recordings):
        own = [one["meg"].numpy() for one in segments if int(one["recording"]) == index]
        ordered = np.sort(np.concatenate(own, axis=1), axis=1)
        quartiles.append(ordered[:, [int(q * ordered.shape[1]) for q in (0.25, 0.5, 0.75)]])
    features = np.concatenate([one["features"].numpy() for one in segments], axis=1)
    mean, deviation = float(features.mean()), float(features.std())
    batch = []
    for one in (data[int(row)] for row in generator.choice(len(places), batch_size)):
        low, centre, high = torch.from_numpy(quartiles[int(one["recording"])]).T[..., None]
        batch.append(((one["meg"] - centre) / (high - low)).clamp(-20, 20))
        one["features"].sub_(mean).div_(deviation)
    return torch.stack(batch)


def reopen(folder: Path) -> Made:
    """What `prepare` wrote; signals are mapped."""
    files = sorted(folder.glob("*_signal.npy"), key=lambda file: int(file.name.split("_")[0]))
    signals = [MadeSignal(np.load(file, mmap_mode="r")) for file in files]
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    onsets = np.load(folder / "onsets.npy")
    return Made(signals, list(range(len(signals))), frames, FEATURE, onsets)
