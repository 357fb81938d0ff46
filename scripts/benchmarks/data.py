"""Batches: gathered from the store and scaled, beside a loop over segments.

Options:
  features=[mel,wav2vec]   targets of 120 and of 1024 columns
  hours=2.0         of brain signals, in recordings as long as the paper's (196 make up 56.2 h)
  n_sensors=208  n_subjects=27  batch_size=256
  residencies=[host]   of device, host, disk
  storages=[fp32]   types that bm keeps signals and features in: fp32, bf16, fp16
  device=cpu        where batches go
  n_batches=20      gathered in each repeat; the reference loads reference_segments=128
  n_workers=0       processes of the reference, and threads of bm, that prepare batches ahead
  n_threads=0       of torch; 0: all cores
  repeats=5

Unit: segments/s from the store to scaled batches on the device.
"""

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bm.core.machine import keep_freed_memory, n_cores
from bm.scaling import BatchScaler
from bm.segments.gather import SegmentGatherer
from bm.segments.loader import SegmentLoader
from scripts.benchmarks.parts.made import gatherer, make
from scripts.benchmarks.parts.measure import Row, in_turn, rows_of, seconds
from scripts.benchmarks.parts.plain import PlainData, PlainScaler, places


@dataclass(frozen=True)
class Settings:
    """See above."""

    features: list[str] = field(default_factory=lambda: ["mel", "wav2vec"])
    hours: float = 2.0
    n_sensors: int = 208
    n_subjects: int = 27
    batch_size: int = 256
    residencies: list[str] = field(default_factory=lambda: ["host"])
    storages: list[str] = field(default_factory=lambda: ["fp32"])
    device: str = "cpu"
    n_batches: int = 20
    reference_segments: int = 128
    n_workers: int = 0
    n_threads: int = 0
    repeats: int = 5


def run(settings: Settings) -> list[Row]:
    """Measure each kind of features."""
    torch.set_num_threads(settings.n_threads or n_cores())
    keep_freed_memory()
    rows = []
    for feature in settings.features:
        made = make(settings.hours, settings.n_sensors, settings.n_subjects, feature)
        segments = gatherer(made)
        scaler = BatchScaler().fit(segments, len(made.signals), seed=0)
        with tempfile.TemporaryDirectory() as folder:
            reference = f"{feature}, plain"
            cases = {
                reference: plain_case(
                    segments,
                    PlainData(made, places(segments), Path(folder)),
                    PlainScaler(scaler),
                    settings,
                )
            }
            for residency, storage in itertools.product(settings.residencies, settings.storages):
                ours = gatherer(made, residency, settings.device, storage)
                name = f"{feature}, {residency}" + f", {storage}" * (storage != "fp32")
                cases[name] = case(ours, scaler, settings)
            figures = in_turn(cases, settings.repeats)
        rows += rows_of("data", "segments/s", figures, reference)
    return rows


def case(segments: SegmentGatherer, scaler: BatchScaler, settings: Settings) -> Callable[[], float]:
    """Segments per second of an epoch of bm's loader."""
    loader = SegmentLoader(
        scaler.with_scaled_features(segments),
        settings.batch_size,
        settings.device,
        0,
        settings.n_batches,
        settings.n_workers,
    )

    def load() -> float:
        n_segments = 0

        def epoch() -> None:
            nonlocal n_segments
            for batch in loader.epoch(0):
                n_segments += len(scaler(batch, in_place=True))

        return 1 / (seconds(epoch, settings.device) / n_segments)

    return load


def plain_case(
    segments: SegmentGatherer, data: PlainData, scaler: PlainScaler, settings: Settings
) -> Callable[[], float]:
    """Segments per second of the plain loop."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(segments), generator=generator)[: settings.reference_segments]
    batches = order.split(min(settings.batch_size, 64))
    loader = torch.utils.data.DataLoader(
        data, batch_sampler=[part.tolist() for part in batches], num_workers=settings.n_workers
    )

    def epoch() -> None:
        for batch in loader:
            scaled = scaler(batch)
            scaled.to(settings.device)

    return lambda: len(order) / seconds(epoch, settings.device)
