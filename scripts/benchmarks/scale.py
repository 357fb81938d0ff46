"""Time and memory against the number of recordings.

Options:
  factors=[1,2,4,8]   times as many recordings
  n_recordings=2    at a factor of 1
  minutes=10.0      of each
  n_sensors=208  batch_size=64
  residency=disk    of device, host, disk
  device=cpu
  n_threads=1       of torch
  repeats=5         epochs

Unit "segments/s": gathered and scaled in an epoch over mel targets, each factor in a fresh process;
the ratio is to the smallest factor, so that 1 means that time grows as the recordings do. Unit
"GiB": the most memory that the process held of its own in these epochs, without mapped files, above
what it held before it opened the recordings.
"""

import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bm.core.machine import keep_freed_memory
from bm.scaling import BatchScaler
from bm.segments.loader import SegmentLoader
from scripts.benchmarks.parts import memory
from scripts.benchmarks.parts.made import Made, MadeSignal, gatherer, make
from scripts.benchmarks.parts.measure import Row, rows_of, seconds


@dataclass(frozen=True)
class Settings:
    """See above."""

    factors: list[str] = field(default_factory=lambda: ["1", "2", "4", "8"])
    n_recordings: int = 2
    minutes: float = 10.0
    n_sensors: int = 208
    batch_size: int = 64
    residency: str = "disk"
    device: str = "cpu"
    n_threads: int = 1
    repeats: int = 5


def run(settings: Settings) -> list[Row]:
    """Measure each factor on its own."""
    speeds, peaks = {}, {}
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "signal.npy"
        memory.in_fresh_process(write, file, settings)
        for factor in settings.factors:
            case = f"{settings.residency}, {factor} x"
            found = memory.in_fresh_process(epochs, file, int(factor), settings)
            speeds[case], peaks[case] = found
    first = next(iter(speeds))
    rows = rows_of("scale", "segments/s", speeds, first)
    return [*rows, *rows_of("scale", "GiB", {case: [peak] for case, peak in peaks.items()})]


def write(file: Path, settings: Settings) -> None:
    """The signal of one recording; all have files of the same content."""
    made = make(settings.minutes / 60, settings.n_sensors, 1, n_recordings=1)
    largest = settings.n_recordings * max(map(int, settings.factors))
    for index in range(largest):
        np.save(file.with_name(f"{index}_signal.npy"), made.signals[0].data)


def epochs(file: Path, factor: int, settings: Settings) -> tuple[list[float], float]:
    """Segments per second of each epoch, and GiB; for a process of its own."""
    torch.set_num_threads(settings.n_threads)
    keep_freed_memory()
    n_recordings = settings.n_recordings * factor
    one = make(settings.minutes / 60, 4, 1, n_recordings=1)
    before = memory.own()
    files = [file.with_name(f"{index}_signal.npy") for index in range(n_recordings)]
    signals = [MadeSignal(np.load(each, mmap_mode="r")) for each in files]
    made = Made(signals, [0] * n_recordings, one.frames, one.feature, one.onsets)
    segments = gatherer(made, settings.residency, settings.device)
    scaler = BatchScaler().fit(segments, n_recordings, seed=0)
    loader = SegmentLoader(segments, settings.batch_size, settings.device)
    most = memory.own()
    speeds = []

    def epoch(number: int) -> None:
        nonlocal most
        for batch in loader.epoch(number):
            scaler(batch)
            most = max(most, memory.own())

    for number in range(settings.repeats):
        duration = seconds(partial(epoch, number), settings.device)
        speeds.append(len(segments) / duration)
    return speeds, (most - before) / memory.GIB
