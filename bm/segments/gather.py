"""Batches of segments, gathered from where signals and features live. Needs torch alone.

Enters: which windows there are, brain signals, features along the recordings. Leaves: batches.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from bm.segments.batch import SegmentBatch
from bm.segments.store import SignalStore

Segments = TypeVar("Segments", bound="SegmentGatherer")


@runtime_checkable
class Columns(Protocol):
    """What some columns of the features mean (a `bm.features.Feature`)."""

    @property
    def name(self) -> str:
        """Name of the feature."""

    @property
    def normalizable(self) -> bool:
        """Whether the scaler may centre and scale them."""


@dataclass(frozen=True, eq=False)
class Stimuli:
    """Features and word mask along the samples of all recordings, end to end.

    Attributes
    ----------
    features : what the rows of each table mean.
    rows : per feature [n, F], in the type that the signals are kept in, too; classes in float32.
    timelines : per feature [sum of T] int32, the row that each sample sees.
    mask : [sum of T] bool, where a word is heard.
    is_scaled : whether the rows are (see `bm.scaling.BatchScaler.with_scaled_features`).
    """

    features: Sequence[Columns]
    rows: list[Tensor]
    timelines: list[Tensor]
    mask: Tensor
    is_scaled: bool = False


@dataclass(frozen=True)
class Windows:
    """Where segments are: all [n], one element per segment.

    Attributes
    ----------
    recording, subject, layout : indices.
    first : first sample in the recording.
    """

    recording: Tensor
    subject: Tensor
    layout: Tensor
    first: Tensor

    def to(self, device: str) -> "Windows":
        """The same on another device."""
        return Windows(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class SegmentGatherer:
    """Gathers batches: no Python is run per segment.

    Parameters
    ----------
    windows : segments.
    store : brain signals.
    stimuli : features.
    n_times : samples T per segment.
    n_baseline : first samples whose mean is subtracted from each sensor; 0: none.
    """

    def __init__(
        self,
        windows: Windows,
        store: SignalStore,
        stimuli: Stimuli,
        n_times: int,
        n_baseline: int,
    ):
        self.windows = windows.to(store.home)
        self.store = store
        self.stimuli = stimuli
        self.n_times = n_times
        self.n_baseline = n_baseline

    def __len__(self) -> int:
        return len(self.windows.first)

    @property
    def n_features(self) -> int:
        """Size F of all features together."""
        return sum(rows.shape[1] for rows in self.stimuli.rows)

    def with_stimuli(self: Segments, stimuli: Stimuli) -> Segments:
        """The same segments, with other features or other rows of them."""
        other = copy(self)
        other.stimuli = stimuli
        return other

    def without_features(self: Segments) -> Segments:
        """The same segments for a model that is asked what was heard.

        No features are gathered, so there are none to scale.
        """
        return self.with_stimuli(
            replace(self.stimuli, features=[], rows=[], timelines=[], is_scaled=True)
        )

    def gather(self, rows: Tensor) -> SegmentBatch:
        """Batch of the segments at `rows` [B]."""
        return self.restore(self.gather_stored(rows))

    def gather_stored(self, rows: Tensor) -> SegmentBatch:
        """The same as it is stored, for `restore`: this is what is copied to another device."""
        rows = rows.to(self.store.home)
        samples, windows = self.samples(rows), self.windows
        recording, first = windows.recording[rows], windows.first[rows]
        return SegmentBatch(
            meg=self.store.gather_stored(recording, first, self.n_times),
            features=self._gather_features(samples),
            mask=self.stimuli.mask[samples][:, None],
            subject_index=windows.subject[rows],
            recording_index=recording,
            layout_index=windows.layout[rows],
            row=rows,
            has_scaled_features=self.stimuli.is_scaled,
        )

    def restore(self, batch: SegmentBatch) -> SegmentBatch:
        """What was stored in single precision, baseline subtracted, on the device where it is."""
        meg = self.store.restore(batch.meg, batch.recording_index)
        return replace(batch, meg=self._without_baseline(meg), features=batch.features.float())

    def gather_meg(self, rows: Tensor) -> Tensor:
        """Brain signals [B, C, T], baseline subtracted."""
        rows = rows.to(self.store.home)
        recording, first = self.windows.recording[rows], self.windows.first[rows]
        return self._without_baseline(self.store.gather(recording, first, self.n_times))

    def samples(self, rows: Tensor) -> Tensor:
        """Positions [B, T] of the segments in the stimuli's timelines."""
        rows = rows.to(self.store.home)
        first = self.store.first_row[self.windows.recording[rows]] + self.windows.first[rows]
        return first[:, None] + torch.arange(self.n_times, device=self.store.home)

    def _without_baseline(self, meg: Tensor) -> Tensor:
        """The same array [B, C, T], changed in place."""
        if self.n_baseline:
            meg -= meg[..., : self.n_baseline].mean(dim=-1, keepdim=True)
        return meg

    def _gather_features(self, samples: Tensor) -> Tensor:
        stimuli = self.stimuli
        parts = [
            rows.index_select(0, timeline[samples].flatten())
            for rows, timeline in zip(stimuli.rows, stimuli.timelines, strict=True)
        ]
        if not parts:
            return torch.empty(len(samples), 0, samples.shape[1], device=samples.device)
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return joined.view(*samples.shape, joined.shape[-1]).transpose(1, 2)
