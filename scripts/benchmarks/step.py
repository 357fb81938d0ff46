"""Training steps of the paper's encoder with the contrastive loss, and whole epochs.

Options:
  n_outputs=1024    columns of the target
  n_sensors=208  n_subjects=27  batch_size=64
  precisions=[fp32,bf16]
  compile=false     also measure torch.compile; warming up is left out
  device=cpu
  n_steps=2         in each repeat
  n_threads=0       of torch; 0: all cores
  epochs=true       also data and step together: the plain loop with one thread and two processes
                    that load, as published, beside bm
  hours=1.0         of brain signals for the epochs
  repeats=5

Unit: segments/s; "plain" is the same encoder with sensor positions embedded for each segment. Rows
of unit "share of roof" hold it against the product of two matrices in the same run.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bm.core.machine import keep_freed_memory, n_cores
from bm.losses import ClipLoss
from bm.scaling import BatchScaler
from bm.segments.batch import SegmentBatch, align_to_delay
from bm.segments.gather import SegmentGatherer
from bm.segments.loader import SegmentLoader
from scripts.benchmarks.parts.made import DELAY, N_TIMES, RATE, SIZES, gatherer, layout, make
from scripts.benchmarks.parts.measure import Row, in_turn, rows_of, seconds
from scripts.benchmarks.parts.plain import (
    PlainData,
    PlainScaler,
    paper_model,
    places,
    plain_model,
)

GFLOP_SEGMENT = 15.15
"""Forward and backward of the encoder: 208 sensors, 343 samples, 1024 outputs."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Settings:
    """See above."""

    n_outputs: int = 1024
    n_sensors: int = 208
    n_subjects: int = 27
    batch_size: int = 64
    precisions: list[str] = field(default_factory=lambda: ["fp32", "bf16"])
    compile: bool = False
    device: str = "cpu"
    n_steps: int = 2
    n_threads: int = 0
    epochs: bool = True
    hours: float = 1.0
    repeats: int = 5


class Trainer:
    """A model with its loss and optimizer.

    Parameters
    ----------
    model : encoder.
    settings : of the bench.
    precision : "fp32" or "bf16".
    is_plain : without what bm does to be fast.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        precision: str = "fp32",
        is_plain: bool = False,
    ):
        self.model = model.to(settings.device).train()
        self.loss = ClipLoss()
        self.layouts = layout(settings.n_sensors).to(settings.device)
        fused = settings.device.startswith("cuda") and not is_plain
        self.optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, fused=fused)
        self.is_half = precision == "bf16"
        self.device = settings.device

    def step(self, batch: SegmentBatch) -> Tensor:
        """One update; the loss stays on the device."""
        meg, target = align_to_delay(batch.meg, batch.features, DELAY, RATE)
        device_type = torch.device(self.device).type
        with torch.autocast(device_type, torch.bfloat16, enabled=self.is_half):
            estimate = self.model(meg, batch.subject_index, self.layouts, batch.layout_index)
        loss: Tensor = self.loss(estimate.float(), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def run(settings: Settings) -> list[Row]:
    """Measure steps, the roof, and epochs."""
    n_threads = settings.n_threads or n_cores()
    torch.set_num_threads(n_threads)
    keep_freed_memory()
    batch = made_batch(settings)
    cases = {"plain, fp32": step_case(trainer(settings, is_plain=True), batch, settings)}
    for precision in settings.precisions:
        ours = trainer(settings, precision)
        cases[f"bm, {precision}"] = step_case(ours, batch, settings)
        if settings.compile:
            compiled = trainer(settings, precision)
            compiled.model = torch.compile(compiled.model)  # type: ignore[assignment]
            cases[f"bm, {precision}, compiled"] = step_case(compiled, batch, settings)
    roofs = {precision: roof_case(precision, settings.device) for precision in settings.precisions}
    figures = in_turn({**cases, **roofs}, settings.repeats)
    rows = rows_of("step", "segments/s", {name: figures[name] for name in cases}, "plain, fp32")
    if (settings.n_sensors, settings.n_outputs) == (208, 1024):
        for precision in settings.precisions:
            speed = zip(figures[f"bm, {precision}"], figures[precision], strict=True)
            shares = [segments * GFLOP_SEGMENT / gflops for segments, gflops in speed]
            rows += rows_of("step", "share of roof", {f"bm, {precision}": shares})
    return rows + (epochs(settings, n_threads) if settings.epochs else [])


def trainer(settings: Settings, precision: str = "fp32", is_plain: bool = False) -> Trainer:
    """The paper's encoder, from the same weights each time."""
    model = paper_model(settings.n_sensors, settings.n_outputs, settings.n_subjects)
    return Trainer(plain_model(model) if is_plain else model, settings, precision, is_plain)


def made_batch(settings: Settings) -> SegmentBatch:
    """A batch of noise, scaled."""
    generator = torch.Generator().manual_seed(0)
    n = settings.batch_size
    batch = SegmentBatch(
        meg=torch.randn(n, settings.n_sensors, N_TIMES, generator=generator),
        features=torch.randn(n, settings.n_outputs, N_TIMES, generator=generator),
        mask=torch.ones(n, 1, N_TIMES, dtype=torch.bool),
        subject_index=torch.arange(n) % settings.n_subjects,
        recording_index=torch.zeros(n, dtype=torch.long),
        layout_index=torch.zeros(n, dtype=torch.long),
        row=torch.arange(n),
    )
    return batch.to(settings.device)


def step_case(trainer: Trainer, batch: SegmentBatch, settings: Settings) -> Callable[[], float]:
    """Segments per second of training on the same batch."""

    def steps() -> None:
        for _ in range(settings.n_steps):
            trainer.step(batch)

    return lambda: settings.n_steps * len(batch) / seconds(steps, settings.device)


def roof_case(precision: str, device: str) -> Callable[[], float]:
    """GFLOP/s of the product of two large matrices."""
    n = 2048 if device == "cpu" else 8192
    left, right = torch.randn(2, n, n, device=device, dtype=DTYPES[precision])
    return lambda: 2e-9 * n**3 / seconds(lambda: left @ right, device)


def epochs(settings: Settings, n_threads: int) -> list[Row]:
    """Data and step together."""
    feature = "wav2vec" if settings.n_outputs == 1024 else "mel"
    settings = replace(settings, n_outputs=SIZES[feature])
    made = make(settings.hours, settings.n_sensors, settings.n_subjects, feature)
    segments = gatherer(made)
    scaler = BatchScaler().fit(segments, len(made.signals), seed=0)
    n_segments = settings.n_steps * settings.batch_size
    order = torch.randperm(len(segments), generator=torch.Generator().manual_seed(0))[:n_segments]
    with tempfile.TemporaryDirectory() as folder:
        data = PlainData(made, places(segments), Path(folder))
        parts = [part.tolist() for part in order.split(settings.batch_size)]
        plain_trainer, plain_scaler = trainer(settings, is_plain=True), PlainScaler(scaler)

        def plain() -> None:
            torch.set_num_threads(1)
            for batch in torch.utils.data.DataLoader(data, batch_sampler=parts, num_workers=2):
                plain_trainer.step(plain_scaler(batch).to(settings.device))
            torch.set_num_threads(n_threads)

        cases = {"epoch, plain": lambda: len(order) / seconds(plain, settings.device)}
        for precision in settings.precisions:
            cases[f"epoch, bm, {precision}"] = epoch_case(
                gatherer(made, "host" if settings.device == "cpu" else "device", settings.device),
                scaler, trainer(settings, precision), settings,
            )  # fmt: skip
        return rows_of("step", "segments/s", in_turn(cases, settings.repeats), "epoch, plain")


def epoch_case(
    segments: SegmentGatherer, scaler: BatchScaler, trainer: Trainer, settings: Settings
) -> Callable[[], float]:
    """Segments per second of bm's loader, scaler and step."""
    loader = SegmentLoader(
        scaler.with_scaled_features(segments),
        settings.batch_size,
        settings.device,
        max_batches=settings.n_steps,
    )

    def epoch() -> None:
        for batch in loader.epoch(0):
            trainer.step(scaler(batch, in_place=True))

    n_segments = min(settings.n_steps * settings.batch_size, len(segments))
    return lambda: n_segments / seconds(epoch, settings.device)
