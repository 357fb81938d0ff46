"""The plain reference: the same work, done one segment at a time, as one would write it first.

Each segment is an MNE ``Epochs`` of its own (numpy where MNE isn't installed); its features are
assembled from the events that it overlaps; segments are scaled one by one; sensor positions are
embedded anew for each of them.
"""

from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bm.models import SimpleConv
from bm.models.merger import SpatialAttention
from bm.scaling import BatchScaler
from bm.segments.batch import SegmentBatch
from bm.segments.gather import SegmentGatherer
from scripts.benchmarks.parts.made import FRAME_RATES, N_BASELINE, N_TIMES, RATE, TMAX, TMIN, Made

HAS_MNE = find_spec("mne") is not None
"""Else the machine has torch and numpy only: see `PlainData`."""
if HAS_MNE:
    import mne
    import pandas as pd

Sample = dict[str, Tensor]


class PlainData(torch.utils.data.Dataset[Sample]):
    """Segments of recordings that lie in a folder as files, one at a time.

    Parameters
    ----------
    made : recordings; written to `folder` as FIF, or as arrays where MNE isn't installed, unless
        they are there already.
    places : [n, 2] recording and first sample of each segment.
    folder : where to write.
    """

    def __init__(self, made: Made, places: np.ndarray, folder: Path):
        self.made = made
        self.places = places
        self.frames_file = folder / "frames.npy"
        if not self.frames_file.exists():
            np.save(self.frames_file, made.frames[1:])
        self.raws: list[Any] = []
        for index, signal in enumerate(made.signals):
            self.raws.append(_write(signal.data.T, folder / f"{index}_raw.fif"))
        self.events = _event_table(made)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        recording, first = self.places[index]
        features, mask = self._features(first / RATE)
        return {
            "meg": torch.from_numpy(self._meg(self.raws[recording], int(first))),
            "features": torch.from_numpy(features),
            "mask": torch.from_numpy(mask),
            "recording": torch.tensor(recording),
            "subject": torch.tensor(self.made.subjects[recording]),
            "row": torch.tensor(index),
        }

    def _meg(self, raw: Any, first: int) -> np.ndarray:
        """Brain signal [C, T] of one segment, baseline subtracted."""
        if not HAS_MNE:
            window = np.array(raw[:, first : first + N_TIMES])
            baseline = window[:, :N_BASELINE].mean(axis=1, keepdims=True)
            return (window - baseline).astype(np.float32)
        event = np.array([[first - round(TMIN * RATE), 0, 1]])
        epochs = mne.Epochs(
            raw, event, tmin=TMIN, tmax=TMAX, baseline=(None, 0), preload=True, verbose=False
        )
        meg: np.ndarray = epochs.get_data(verbose=False)[0].astype(np.float32)
        return meg

    def _features(self, start: float) -> tuple[np.ndarray, np.ndarray]:
        """Features [F, T] and word mask [1, T] of the events that a segment overlaps."""
        stop = start + N_TIMES / RATE
        features = np.zeros((self.made.frames.shape[1], N_TIMES), dtype=np.float32)
        mask = np.zeros((1, N_TIMES), dtype=bool)
        for event in _overlapping(self.events, start, stop):
            begin = max(0, round((event["start"] - start) * RATE))
            end = min(N_TIMES, round((event["start"] + event["duration"] - start) * RATE))
            if event["kind"] == "word":
                mask[:, begin:end] = True
            else:
                frames = np.load(self.frames_file, mmap_mode="r")
                rate = FRAME_RATES[self.made.feature]
                times = start + np.arange(begin, end) / RATE - event["start"]
                rows = np.round(times * rate).astype(int).clip(0, len(frames) - 1)
                features[:, begin:end] = np.array(frames[rows[0] : rows[-1] + 1])[rows - rows[0]].T
        return features, mask


class PlainScaler:
    """Scales segments one by one, with the statistics of a fitted `BatchScaler`."""

    def __init__(self, fitted: BatchScaler):
        self.fitted = fitted

    def __call__(self, batch: Sample) -> SegmentBatch:
        """Scaled segments side by side."""
        fitted = self.fitted
        meg, features = [], []
        for segment, stimulus, recording in zip(
            batch["meg"], batch["features"], batch["recording"], strict=True
        ):
            index = int(recording)
            scaled = (segment - fitted.centre[index][:, None]) / fitted.scale[index][:, None]
            meg.append(scaled.clamp(-fitted.max_scale, fitted.max_scale))
            centred = stimulus - fitted.feature_centre[:, None]
            features.append(centred / fitted.feature_scale[:, None])
        return SegmentBatch(
            torch.stack(meg), torch.stack(features), batch["mask"], batch["subject"],
            batch["recording"], torch.zeros_like(batch["recording"]), batch["row"],
        )  # fmt: skip


class PlainAttention(SpatialAttention):
    """Spatial attention that embeds the positions of each segment anew."""

    def forward(
        self,
        meg: Tensor,
        layouts: Tensor,
        layout_index: Tensor,
        subject_index: Tensor | None = None,
    ) -> Tensor:
        """[B, C, T] to [B, n_virtual, T]."""
        positions = layouts[layout_index]  # [B, C, 2]
        embedding = self.embedding(positions)  # [B, C, D]
        scores = torch.einsum("hd,bcd->bhc", self.heads, embedding)
        if self.training and self.dropout > 0:
            centre = torch.rand(2, device=positions.device)
            near = (positions - centre).norm(dim=-1) <= self.dropout  # [B, C]
            scores = scores.masked_fill(near[:, None], -torch.inf)
        return scores.softmax(dim=-1) @ meg


def plain_model(model: SimpleConv) -> SimpleConv:
    """A copy of a model with the plain sensor attention and the same weights."""
    copy = deepcopy(model)
    merger = model.merger
    assert merger is not None
    n_virtual, dimension = merger.heads.shape
    copy.merger = PlainAttention(n_virtual, dimension, merger.dropout)
    copy.merger.load_state_dict(merger.state_dict())
    return copy


def paper_model(n_sensors: int, n_outputs: int, n_subjects: int) -> SimpleConv:
    """The encoder of the paper (the configuration's ``model=clip_conv``)."""
    torch.manual_seed(0)
    return SimpleConv(
        n_sensors, n_outputs, n_subjects, hidden=320, depth=10, kernel_size=3,
        dilation_growth=2, dilation_period=5, skip=True, glu=2, glu_context=1, batch_norm=True,
        gelu=True, merger=True, merger_channels=270, merger_pos_dim=2048, merger_dropout=0.2,
        initial_linear=270, subject_layers=True, subject_dim=0, complex_out=True,
    )  # fmt: skip


def places(segments: SegmentGatherer) -> np.ndarray:
    """[n, 2] recording and first sample of each segment."""
    windows = segments.windows
    return torch.stack([windows.recording, windows.first], dim=1).cpu().numpy()


def _write(data: np.ndarray, file: Path) -> Any:
    """Write [C, T] and open it again without loading it."""
    if not HAS_MNE:
        if not file.with_suffix(".npy").exists():
            np.save(file.with_suffix(".npy"), data)
        return np.load(file.with_suffix(".npy"), mmap_mode="r")
    if not file.exists():
        info = mne.create_info(len(data), RATE, "mag", verbose=False)
        mne.io.RawArray(data, info, verbose=False).save(file, fmt="single", verbose=False)
    return mne.io.read_raw_fif(file, preload=False, verbose=False)


def _event_table(made: Made) -> Any:
    """The story and its words: a data frame, or a structured array where pandas isn't installed."""
    story = [("sound", 0.0, made.n_samples / RATE)]
    rows = story + [("word", float(onset), 0.3) for onset in made.onsets]
    if HAS_MNE:
        return pd.DataFrame(rows, columns=["kind", "start", "duration"])
    return np.array(rows, dtype=[("kind", "U8"), ("start", float), ("duration", float)])


def _overlapping(events: Any, start: float, stop: float) -> list[Any]:
    chosen = events[(events["start"] < stop) & (events["start"] + events["duration"] > start)]
    return chosen.to_dict("records") if HAS_MNE else list(chosen)
