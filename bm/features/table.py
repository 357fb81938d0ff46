"""Lay features along recordings: rows of numbers, and for each sample the row that it sees.

A segment's features are then ``rows[timeline[start:stop]]``. All recordings share the rows, so a
hundred people hearing one story need one table. Row 0 is what stands where nothing is heard.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.core.progress import progress
from bm.features.base import EventFeature, Feature, SoundFeature
from bm.recordings.sound import read_sound, sound_digest

logger = logging.getLogger(__name__)

FRAMES = "frames.npy"
SHORTEST_PIECE = 0.05
"""Seconds: shorter remains of a cut sound hold no frame worth having, and count as silence."""


@dataclass(frozen=True)
class FeatureTable:
    """A feature of all recordings.

    Attributes
    ----------
    feature : what the columns mean.
    rows : [n, F] float32; row 0 is the default.
    timelines : per recording [T] int32, the row that each sample of the brain signal sees.
    """

    feature: Feature
    rows: np.ndarray
    timelines: list[np.ndarray]


def build_table(
    feature: Feature,
    events: Sequence[pd.DataFrame],
    n_samples: Sequence[int],
    sample_rate: float,
    cache: Cache,
) -> FeatureTable:
    """Compute a feature for all recordings, each distinct stimulus once.

    Parameters
    ----------
    feature : what to compute.
    events : per recording, the events, sounds already cut at block borders.
    n_samples : per recording, length T of its brain signal.
    sample_rate : Hz of the brain signal.
    cache : where the frames of each piece of sound are kept.
    """
    selected = [table[table["kind"] == feature.event_kind] for table in events]
    if not any(len(table) for table in selected):
        raise DataError(
            f"{feature.name} needs {feature.event_kind} events, but no recording has any."
        )
    if isinstance(feature, SoundFeature):
        lay = _SoundLayer(feature, cache)
        timelines = [
            lay.timeline(table, n, sample_rate)
            for table, n in zip(
                progress(selected, feature.name, "recording"), n_samples, strict=True
            )
        ]
        rows = np.concatenate([_default_row(feature), *lay.pieces])
        if lay.n_too_short:
            logger.warning(
                "%s: %d piece(s) of sound shorter than %g s count as silence.",
                feature.name, lay.n_too_short, SHORTEST_PIECE,
            )  # fmt: skip
    elif isinstance(feature, EventFeature):
        timelines, rows = _event_timelines(feature, selected, n_samples, sample_rate)
    else:
        raise TypeError(f"{feature.name} is neither a SoundFeature nor an EventFeature.")
    return FeatureTable(feature, rows.astype(np.float32, copy=False), timelines)


def word_mask(
    events: Sequence[pd.DataFrame], n_samples: Sequence[int], sample_rate: float
) -> list[np.ndarray]:
    """Per recording [T] bool: a word is heard at that sample."""
    masks = []
    for table, n in zip(events, n_samples, strict=True):
        mask = np.zeros(n, dtype=bool)
        for _, samples in _spans(table[table["kind"] == "word"], n, sample_rate):
            mask[samples] = True
        masks.append(mask)
    return masks


class _SoundLayer:
    """Collects the frames of pieces of sound, each distinct one once."""

    def __init__(self, feature: SoundFeature, cache: Cache):
        self.feature = feature
        self.cache = cache
        self.pieces: list[np.ndarray] = []
        self.n_rows = 1
        self.n_too_short = 0
        self.known: dict[tuple[str, float, float], tuple[int, int]] = {}

    def timeline(self, sounds: pd.DataFrame, n_samples: int, sample_rate: float) -> np.ndarray:
        timeline = np.zeros(n_samples, dtype=np.int32)
        for sound, samples in _spans(sounds, n_samples, sample_rate):
            offset, duration = _whole_milliseconds(sound.offset, sound.duration)
            if duration < SHORTEST_PIECE:
                self.n_too_short += 1
                continue
            first, n_frames = self._rows_of(sound.filepath, offset, duration)
            times = np.arange(samples.start, samples.stop) / sample_rate  # in the recording
            elapsed = times - sound.start + sound.offset - offset
            frame = (elapsed * (n_frames / duration)).astype(np.int32)
            timeline[samples] = first + frame.clip(0, n_frames - 1)
        return timeline

    def _rows_of(self, path: str, offset: float, duration: float) -> tuple[int, int]:
        """First row and number of rows of a piece."""
        piece = sound_digest(path), offset, duration
        if piece not in self.known:
            frames = self._frames(Path(path), *piece)
            self.known[piece] = self.n_rows, len(frames)
            self.pieces.append(frames)
            self.n_rows += len(frames)
        return self.known[piece]

    def _frames(self, path: Path, content: str, offset: float, duration: float) -> np.ndarray:
        feature = self.feature
        key = {
            "feature": feature.name,
            "version": feature.version,
            "arguments": feature.key,
            "sound": content,
            "offset": offset,
            "duration": duration,
        }

        def build(folder: Path) -> None:
            sound = read_sound(path, offset, duration, feature.input_rate)
            try:
                frames = feature.frames(sound)
            except DataError as error:
                raise DataError(f"{feature.name} of {path} at {offset} s: {error}") from error
            np.save(folder / FRAMES, frames.astype(np.float32))

        label = f"{feature.name}-{path.stem}-{offset:.3f}"
        return np.load(self.cache.entry("features", key, build, label) / FRAMES)


def _whole_milliseconds(offset: float, duration: float) -> tuple[float, float]:
    """Offset and duration of the piece within, which listeners share: never beyond its ends."""
    noise = 1e-3  # of a millisecond: sums of floats miss whole ones by less
    begin = math.ceil(1000 * offset - noise)
    end = math.floor(1000 * (offset + duration) + noise)
    return begin / 1000, max(0, end - begin) / 1000


def _event_timelines(
    feature: EventFeature,
    events: Sequence[pd.DataFrame],
    n_samples: Sequence[int],
    sample_rate: float,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Timelines, and rows of a feature with one value per event; equal values share one."""
    values = feature.values(pd.concat(events, ignore_index=True)).astype(np.float32)
    distinct, row_of_event = np.unique(values, axis=0, return_inverse=True)
    row_of_event = row_of_event.reshape(-1) + 1
    timelines, first = [], 0
    for table, n in zip(events, n_samples, strict=True):
        timeline = np.zeros(n, dtype=np.int32)
        for index, (_, samples) in enumerate(_spans(table, n, sample_rate)):
            if feature.only_onset:
                samples = slice(samples.start, samples.start + 1)
            timeline[samples] = row_of_event[first + index]
        timelines.append(timeline)
        first += len(table)
    return timelines, np.concatenate([_default_row(feature), distinct])


def _spans(events: pd.DataFrame, n_samples: int, sample_rate: float) -> Iterable[tuple[Any, slice]]:
    """Each event with the samples from its start up to, not including, its end."""
    starts = events["start"].to_numpy(float)
    stops = starts + events["duration"].to_numpy(float)
    first = np.ceil(starts * sample_rate - 1e-6).astype(int).clip(0, n_samples)
    last = np.ceil(stops * sample_rate - 1e-6).astype(int).clip(0, n_samples)
    for event, begin, end in zip(events.itertuples(), first, last, strict=True):
        yield event, slice(int(begin), int(end))


def _default_row(feature: Feature) -> np.ndarray:
    return np.full((1, feature.dimension), feature.default, dtype=np.float32)
