"""Segments of one split: a table of windows, and the batches gathered from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bm.features import Feature, FeatureTable
from bm.segments.batch import SegmentBatch
from bm.segments.store import SignalStore


@dataclass(frozen=True)
class Stimuli:
    """Features and word mask along the samples of all recordings, end to end.

    Attributes
    ----------
    features : what the rows of each table mean.
    rows : per feature [n, F].
    timelines : per feature [sum of T] int32, the row that each sample sees.
    mask : [sum of T] bool, where a word is heard.
    """

    features: list[Feature]
    rows: list[Tensor]
    timelines: list[Tensor]
    mask: Tensor

    @classmethod
    def join(
        cls, tables: Sequence[FeatureTable], masks: Sequence[np.ndarray], home: str
    ) -> "Stimuli":
        """Lay the recordings of each table end to end, on the device where the signals live."""
        return cls(
            [table.feature for table in tables],
            [torch.from_numpy(table.rows).to(home) for table in tables],
            [torch.from_numpy(np.concatenate(table.timelines)).to(home) for table in tables],
            torch.from_numpy(np.concatenate(masks)).to(home),
        )


class SegmentDataset:
    """Segments of one split.

    Parameters
    ----------
    table : one row per segment: ``recording``, ``subject``, ``layout`` (indices), ``first`` sample,
        and the labels of the anchoring event.
    store : brain signals.
    stimuli : features.
    n_times : samples T per segment.
    n_baseline : first samples whose mean is subtracted from each sensor; 0: none.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        store: SignalStore,
        stimuli: Stimuli,
        n_times: int,
        n_baseline: int,
    ):
        self.table = table.reset_index(drop=True)
        self.store = store
        self.stimuli = stimuli
        self.n_times = n_times
        self.n_baseline = n_baseline
        home = store.home
        self._first = torch.tensor(self.table["first"].to_numpy(np.int64), device=home)
        self._recording = torch.tensor(self.table["recording"].to_numpy(np.int64), device=home)
        self._subject = torch.tensor(self.table["subject"].to_numpy(np.int64), device=home)
        self._layout = torch.tensor(self.table["layout"].to_numpy(np.int64), device=home)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def n_features(self) -> int:
        """Size F of all features together."""
        return sum(rows.shape[1] for rows in self.stimuli.rows)

    def gather(self, rows: Tensor) -> SegmentBatch:
        """Batch of the segments at `rows` [B] of the table."""
        rows = rows.to(self.store.home)
        recording = self._recording[rows]
        samples = self.samples(rows)
        return SegmentBatch(
            meg=self.gather_meg(rows),
            features=self._gather_features(samples),
            mask=self.stimuli.mask[samples][:, None],
            subject_index=self._subject[rows],
            recording_index=recording,
            layout_index=self._layout[rows],
            row=rows,
        )

    def gather_meg(self, rows: Tensor) -> Tensor:
        """Brain signals [B, C, T], baseline subtracted."""
        rows = rows.to(self.store.home)
        meg = self.store.gather(self._recording[rows], self._first[rows], self.n_times)
        if self.n_baseline:
            meg = meg - meg[..., : self.n_baseline].mean(dim=-1, keepdim=True)
        return meg

    def samples(self, rows: Tensor) -> Tensor:
        """Positions [B, T] of the segments in the stimuli's timelines."""
        rows = rows.to(self.store.home)
        first = self.store.first_row[self._recording[rows]] + self._first[rows]
        return first[:, None] + torch.arange(self.n_times, device=self.store.home)

    def _gather_features(self, samples: Tensor) -> Tensor:
        stimuli = self.stimuli
        parts = [
            rows[timeline[samples]]
            for rows, timeline in zip(stimuli.rows, stimuli.timelines, strict=True)
        ]
        return torch.cat(parts, dim=-1).transpose(1, 2)
