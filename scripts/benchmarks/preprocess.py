"""Preprocessing of a recording: in chunks, beside resampling the whole array.

Options:
  minutes=10.0  n_sensors=208
  rate=1000         Hz of the recording; it becomes one of 120 Hz
  n_threads=0       of torch; 0: all cores
  repeats=5

Rows of unit "s" hold the time from a FIF file to one that training can map; rows of unit "GiB" the
peak of memory, above what was in use when all was imported, of a fresh process for each. The row
"difference" holds the largest one between both results, in standard deviations.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import julius
import mne
import numpy as np
import torch

from bm.core.machine import n_cores
from bm.recordings.preprocess import Preprocessing, preprocess
from bm.recordings.signal import DATA
from scripts.benchmarks.parts import memory
from scripts.benchmarks.parts.measure import Row, in_turn, rows_of, seconds

NEW_RATE = 120
PLAIN, OURS = "plain", "bm"


@dataclass(frozen=True)
class Settings:
    """See above."""

    minutes: float = 10.0
    n_sensors: int = 208
    rate: int = 1000
    n_threads: int = 0
    repeats: int = 5


def run(settings: Settings) -> list[Row]:
    """Measure time in turn, then the memory of each on its own."""
    torch.set_num_threads(settings.n_threads or n_cores())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "made_raw.fif"
        memory.in_fresh_process(write, file, settings)
        works = {kind: partial(work, file, folder / kind) for kind, work in WORKS.items()}
        times = {kind: partial(seconds, work) for kind, work in works.items()}
        rows = rows_of(
            "preprocess", "s", in_turn(times, settings.repeats), PLAIN, less_is_better=True
        )
        peaks = {
            kind: [memory.in_fresh_process(taken, kind, file, folder / kind, settings)]
            for kind in WORKS
        }
        rows += rows_of("preprocess", "GiB", peaks, PLAIN, less_is_better=True)
        whole, ours = (np.load(folder / kind / DATA, mmap_mode="r") for kind in (PLAIN, OURS))
        difference = float(np.abs(whole - ours).max() / whole.std())
    return [*rows, *rows_of("preprocess", "difference", {OURS: [difference]})]


def write(file: Path, settings: Settings) -> None:
    """Noise, as a FIF file."""
    generator = np.random.default_rng(0)
    shape = (settings.n_sensors, round(settings.minutes * 60 * settings.rate))
    values = 1e-13 * generator.standard_normal(shape, dtype=np.float32)
    info = mne.create_info(settings.n_sensors, settings.rate, "mag", verbose=False)
    for channel in info["chs"]:
        channel["loc"][:3] = 0.1 * generator.standard_normal(3)
    mne.io.RawArray(values, info, verbose=False).save(file, fmt="single", verbose=False)


def whole_array(file: Path, folder: Path) -> None:
    """What one would write first: read all, resample all, store."""
    folder.mkdir(exist_ok=True)
    values = _open(file).get_data().astype(np.float32)
    rate = round(_open(file).info["sfreq"])
    resampled = julius.resample_frac(torch.from_numpy(values), rate, NEW_RATE)
    np.save(folder / DATA, np.ascontiguousarray(resampled.T.numpy()))


def in_chunks(file: Path, folder: Path) -> None:
    """What bm does."""
    folder.mkdir(exist_ok=True)
    preprocess(_open(file), Preprocessing(NEW_RATE), folder, file.name)


WORKS: dict[str, Callable[[Path, Path], None]] = {PLAIN: whole_array, OURS: in_chunks}


def taken(kind: str, file: Path, folder: Path, settings: Settings) -> float:
    """GiB that the work takes above what was there; for a process of its own."""
    torch.set_num_threads(settings.n_threads or n_cores())
    before = memory.used()
    memory.forget_peak()
    WORKS[kind](file, folder)
    return (memory.peak() - before) / memory.GIB


def _open(file: Path) -> mne.io.BaseRaw:
    return mne.io.read_raw_fif(file, verbose=False)
