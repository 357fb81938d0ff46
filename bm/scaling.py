"""Bring signals and features to a common scale, with statistics of the training split alone.

Brain signals: per recording and sensor, median and interquartile range, then clamped. Features:
mean and standard deviation. Reference: Défossez et al. 2023, doi:10.1038/s42256-023-00714-5.
"""

import logging
import mmap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from bm.core.cache import Cache
from bm.core.hashing import array_checksum
from bm.segments import SegmentBatch, SegmentGatherer
from bm.segments.gather import Segments, Stimuli
from bm.segments.store import free_memory

logger = logging.getLogger(__name__)


VERSION = 1
FITTED = "scaler.pt"
AT_ONCE, COUNTED_AT_ONCE = 16, 200
"""Segments, and then sensors, whose signals are looked at; and segments that see features."""
SMALLEST_SPREAD = 1e-6
"""Columns that deviate less, relative to their mean, are constant but for rounding."""
TABLE_SHARE = 0.25
"""Of the memory that is free: what a scaled copy of the tables of features may take."""


def robust_scale(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and interquartile range of each column of [N, C].

    Quartiles are the sorted values at index int(q * N), without interpolation, as published. A
    column without spread has scale 1.
    """
    n = len(values)
    places = [int(q * n) for q in (0.25, 0.5, 0.75)]
    ordered = np.partition(values, places, axis=0)
    low, centre, high = (ordered[place] for place in places)
    scale = high - low
    return centre, np.where(scale == 0, np.ones_like(scale), scale)


class BatchScaler:
    """Scales batches of segments.

    Parameters
    ----------
    max_scale : brain signals are clamped to this many interquartile ranges.
    clip : clamp; else segments that go beyond are rejected.
    per_channel : scale each feature column on its own rather than all columns alike.
    n_samples_per_recording : segments that the scale of a recording is estimated on.
    n_samples_features : segments that the scale of the features is estimated on.
    exclude_empty_features : reject segments in which no word is heard.

    Attributes
    ----------
    centre, scale : [R, C] per recording and sensor.
    feature_centre, feature_scale : [F].
    fitted_on : [n, 2] recording and first sample of the windows that these were estimated on, for
        the leak audit; empty where a checkpoint doesn't say.
    """

    def __init__(
        self,
        max_scale: float = 20.0,
        clip: bool = True,
        per_channel: bool = False,
        n_samples_per_recording: int = 200,
        n_samples_features: int = 8000,
        exclude_empty_features: bool = False,
    ):
        if max_scale <= 0:
            raise ValueError(f"norm.max_scale={max_scale} must be positive.")
        self.max_scale = max_scale
        self.clip = clip
        self.per_channel = per_channel
        self.n_samples_per_recording = n_samples_per_recording
        self.n_samples_features = n_samples_features
        self.exclude_empty_features = exclude_empty_features
        self.centre = self.scale = torch.empty(0, 0)
        self.feature_centre = self.feature_scale = torch.empty(0)
        self.fitted_on = torch.empty(0, 2, dtype=torch.int64)
        self._tables: WeakKeyDictionary[Stimuli, Stimuli] = WeakKeyDictionary()

    def fit(self, train: SegmentGatherer, n_recordings: int, seed: int) -> "BatchScaler":
        """Estimate all statistics on training segments, drawn at random from `seed`.

        Raises
        ------
        ValueError : no training segments, or a feature has the same value in all of them.
        """
        if not len(train):
            raise ValueError(
                "No training segments to estimate the scale of signals and features on."
            )
        generator = torch.Generator().manual_seed(seed)
        self.centre = torch.zeros(n_recordings, train.store.n_sensors)
        self.scale = torch.ones(n_recordings, train.store.n_sensors)
        recording = train.windows.recording.cpu()
        used = []
        n_most = min(self.n_samples_per_recording, int(recording.bincount().max()))
        room = torch.empty(n_most, train.n_times, train.store.n_sensors)
        for index in recording.unique().tolist():
            rows = (recording == index).nonzero()[:, 0]
            order = torch.randperm(len(rows), generator=generator)
            rows = rows[order[: self.n_samples_per_recording]]
            used.append(rows)
            self.centre[index], self.scale[index] = _fit_signals(train, rows, room)
        rows = torch.randperm(len(train), generator=generator)[: self.n_samples_features]
        self._fit_features(train, rows)
        seen = torch.cat([*used, rows]).unique()
        self.fitted_on = torch.stack([recording, train.windows.first.cpu()], dim=1)[seen]
        return self

    def fit_once(
        self, train: SegmentGatherer, n_recordings: int, seed: int, cache: Cache
    ) -> "BatchScaler":
        """`fit`, or the same from the cache if it was done before.

        Signals are known by the entries of the cache that they lie in; where one doesn't lie there,
        as in a control, nothing is kept.
        """
        signals = [_entry(array) for array in train.store.arrays]
        if None in signals:
            return self.fit(train, n_recordings, seed)
        stimuli, windows = train.stimuli, train.windows
        tensors = (
            windows.recording, windows.first, *stimuli.rows, *stimuli.timelines, stimuli.mask
        )  # fmt: skip
        key = {
            "version": VERSION,
            "signals": signals,
            "storage": str(train.store.dtype),
            "segments": array_checksum(_bytes(tensor) for tensor in tensors),
            "n_times": [train.n_times, train.n_baseline],
            "normalizable": [feature.normalizable for feature in stimuli.features],
            "settings": {name: getattr(self, name) for name in _NUMBERS},
            "seed": seed,
            "n_recordings": n_recordings,
        }

        def build(folder: Path) -> None:
            torch.save(self.fit(train, n_recordings, seed).state_dict(), folder / FITTED)

        path = cache.entry("scalers", key, build) / FITTED
        self.load_state_dict(torch.load(path, weights_only=True))
        return self

    def _fit_features(self, train: SegmentGatherer, rows: Tensor) -> None:
        """Weigh each row of a table by how often the chosen segments see it during words."""
        stimuli = train.stimuli
        counts = _count(train, rows)
        if not counts[0].any():
            logger.warning(
                "No words in the training segments: features are scaled over all samples."
            )
            counts = _count(train, rows, everywhere=True)
        centres, scales = [], []
        for feature, table, count in zip(stimuli.features, stimuli.rows, counts, strict=True):
            centre, scale = torch.zeros(table.shape[1]), torch.ones(table.shape[1])
            if feature.normalizable:
                centre, scale = _weighted_scale(table, count.double(), self.per_channel)
                flat = scale <= SMALLEST_SPREAD * centre.abs()
                if flat.all():
                    raise ValueError(
                        f"Feature {feature.name} has the same value in all training segments: "
                        "nothing to learn. Are the sound files silent, or the events missing?"
                    )
                if flat.any():
                    logger.warning(
                        "%s: %d constant column(s), not scaled.", feature.name, flat.sum()
                    )
                    scale[flat] = 1.0
            centres.append(centre)
            scales.append(scale)
        self.feature_centre, self.feature_scale = torch.cat(centres), torch.cat(scales)
        self._tables.clear()

    def with_scaled_features(self, segments: Segments) -> Segments:
        """The same segments, whose batches come with scaled features.

        A row of a table is seen by several samples of many segments, but scaled once here; the
        numbers are the same. Where there is no room for a second table, or tables are kept in half
        precision to save memory, nothing is changed: the features of each batch are scaled then.
        """
        stimuli = segments.stimuli
        if stimuli not in self._tables:
            n_bytes = sum(rows.nbytes for rows in stimuli.rows)
            no_room = n_bytes > TABLE_SHARE * free_memory(segments.store.home)
            if stimuli.is_scaled or segments.store.is_half or no_room:
                return segments
            self._tables[stimuli] = self._scaled(stimuli)
        return segments.with_stimuli(self._tables[stimuli])

    def __call__(self, batch: SegmentBatch, in_place: bool = False) -> SegmentBatch:
        """Scaled copy of a batch; rejected segments are missing from it.

        Parameters
        ----------
        in_place : the batch's own numbers are overwritten: nobody else needs them.
        """
        self._move(batch.meg.device)
        centre = self.centre[batch.recording_index][..., None]
        scale = self.scale[batch.recording_index][..., None]
        meg = batch.meg.sub_(centre) if in_place else batch.meg - centre
        meg /= scale  # in place: fresh memory costs more than the arithmetic
        features = batch.features
        if not batch.has_scaled_features:
            centre = self.feature_centre[:, None]
            features = features.sub_(centre) if in_place else features - centre
            features /= self.feature_scale[:, None]
        wanted = []
        if self.clip:
            meg.clamp_(-self.max_scale, self.max_scale)
        else:
            wanted.append((meg.abs() <= self.max_scale).flatten(1).all(dim=1))
        if self.exclude_empty_features:
            wanted.append(batch.mask.flatten(1).any(dim=1))
        scaled = replace(batch, meg=meg, features=features, has_scaled_features=True)
        if not wanted:  # nothing that the host would have to wait for
            return scaled
        keep = torch.stack(wanted).all(dim=0)
        return scaled if keep.all() else scaled.select(keep)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state_dict` restores."""
        return {name: getattr(self, name) for name in (*_TENSORS, *_NUMBERS, "fitted_on")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in (*_TENSORS, *_NUMBERS):
            setattr(self, name, state[name])
        self.fitted_on = state.get("fitted_on", self.fitted_on[:0])
        self._tables.clear()

    def _scaled(self, stimuli: Stimuli) -> Stimuli:
        """The same stimuli with scaled rows; a table that nothing changes is shared."""
        sizes = [rows.shape[1] for rows in stimuli.rows]
        tables = []
        for rows, centre, scale in zip(
            stimuli.rows, self.feature_centre.split(sizes), self.feature_scale.split(sizes),
            strict=True,
        ):  # fmt: skip
            if centre.any() or (scale != 1).any():
                rows = rows.sub(centre.to(rows.device)).div_(scale.to(rows.device))
            tables.append(rows)
        return replace(stimuli, rows=tables, is_scaled=True)

    def _move(self, device: torch.device) -> None:
        if self.centre.device != device:
            for name in _TENSORS:
                setattr(self, name, getattr(self, name).to(device))


_TENSORS: Sequence[str] = ("centre", "scale", "feature_centre", "feature_scale")
_NUMBERS: Sequence[str] = (
    "max_scale", "clip", "per_channel", "n_samples_per_recording", "n_samples_features",
    "exclude_empty_features",
)  # fmt: skip


def _entry(array: np.ndarray) -> str | None:
    """Name of the cache's entry that is mapped into an array, whole and as it is, if one is."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap) and array.filename:
        return Path(array.filename).parent.name
    return None


def _bytes(tensor: Tensor) -> np.ndarray:
    """The same bytes as an array; numpy knows no bfloat16."""
    whole = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    array: np.ndarray = whole.cpu().numpy()
    return array


def _fit_signals(train: SegmentGatherer, rows: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
    """`robust_scale` of the signals of segments at `rows`.

    They are put into `room` [n, T, C], which all recordings share: large arrays of each one's own
    leave holes in memory, so that it would grow with the number of recordings.
    """
    meg = room[: len(rows)]
    for some, into in zip(rows.split(AT_ONCE), meg.split(AT_ONCE), strict=True):
        into.copy_(train.gather_meg(some).transpose(1, 2))
    samples = meg.flatten(0, 1).numpy()
    parts = [
        robust_scale(samples[:, first : first + AT_ONCE])
        for first in range(0, samples.shape[1], AT_ONCE)
    ]
    centres, scales = zip(*parts, strict=True)
    return torch.from_numpy(np.concatenate(centres)), torch.from_numpy(np.concatenate(scales))


def _count(train: SegmentGatherer, rows: Tensor, everywhere: bool = False) -> list[Tensor]:
    """How often segments see each row of each table during words, or at all."""
    stimuli = train.stimuli
    counts = [torch.zeros(len(table), dtype=torch.int64).to(table.device) for table in stimuli.rows]
    for some in rows.split(COUNTED_AT_ONCE):
        samples = train.samples(some).flatten()
        if not everywhere:
            samples = samples[stimuli.mask[samples]]
        for count, timeline in zip(counts, stimuli.timelines, strict=True):
            count += torch.bincount(timeline[samples], minlength=len(count))
    return counts


def _weighted_scale(table: Tensor, counts: Tensor, per_channel: bool) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [F] of a table [n, F], its row k counted `counts[k]` times."""
    used = counts > 0
    rows, weights = table[used].double(), counts[used, None] / counts.sum()
    mean = (rows * weights).sum(dim=0)
    if not per_channel:
        mean = mean.mean().repeat(len(mean))
    variance = ((rows - mean).square() * weights).sum(dim=0)
    if not per_channel:
        variance = variance.mean().repeat(len(variance))
    return mean.float().cpu(), variance.sqrt().float().cpu()
