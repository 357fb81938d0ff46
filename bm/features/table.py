"""Lay features along recordings: rows of numbers, and for each sample the row that it sees.

A segment's features are then ``rows[timeline[start:stop]]``. All recordings share the rows, so a
hundred people hearing one story need one table. Row 0 is what stands where nothing is heard.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bm.core.cache import Cache
from bm.core.hashing import digest
from bm.core.messages import DataError
from bm.features.base import EventFeature, Feature, SoundFeature
from bm.features.extract import Piece, extract_frames
from bm.recordings.sound import sound_digest

logger = logging.getLogger(__name__)

VALUES = "values.npy"
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
        timelines, rows = _sound_timelines(feature, selected, n_samples, sample_rate, cache)
    elif isinstance(feature, EventFeature):
        timelines, rows = _event_timelines(feature, selected, n_samples, sample_rate, cache)
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
        for samples in _spans(table[table["kind"] == "word"], n, sample_rate):
            mask[samples] = True
        masks.append(mask)
    return masks


def _sound_timelines(
    feature: SoundFeature,
    sounds: Sequence[pd.DataFrame],
    n_samples: Sequence[int],
    sample_rate: float,
    cache: Cache,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Timelines, and rows of a feature of sound; listeners to the same piece share its frames."""
    heard = [[_piece(sound) for sound in table.itertuples()] for table in sounds]
    pieces = [piece for listed in heard for piece in listed]
    n_short = pieces.count(None)
    if n_short:
        logger.warning(
            "%s: %d piece(s) of sound shorter than %g s count as silence.",
            feature.name, n_short, SHORTEST_PIECE,
        )  # fmt: skip
    distinct = dict.fromkeys(piece for piece in pieces if piece is not None)
    rows, places = _sound_rows(feature, extract_frames(feature, distinct, cache))
    timelines = []
    sound: Any  # a named tuple of the table's columns
    for table, listed, n in zip(sounds, heard, n_samples, strict=True):
        timeline = np.zeros(n, dtype=np.int32)
        spans = _spans(table, n, sample_rate)
        for piece, sound, samples in zip(listed, table.itertuples(), spans, strict=True):
            if piece is None:
                continue
            first, n_frames = places[piece]
            times = np.arange(samples.start, samples.stop) / sample_rate  # in the recording
            elapsed = times - sound.start + sound.offset - piece.offset
            frame_rate = feature.frame_rate or n_frames / piece.duration
            frame = (elapsed * frame_rate + 1e-6).astype(np.int32)
            timeline[samples] = first + frame.clip(0, n_frames - 1)
        timelines.append(timeline)
    return timelines, rows


def _sound_rows(
    feature: SoundFeature, files: Mapping[Piece, Path]
) -> tuple[np.ndarray, dict[Piece, tuple[int, int]]]:
    """Rows of all pieces; and of each the first row and how many there are."""
    places, n_rows = {}, 1
    for piece, file in files.items():
        n_frames = len(np.load(file, "r"))
        places[piece] = n_rows, n_frames
        n_rows += n_frames
    rows = np.empty((n_rows, feature.dimension), dtype=np.float32)
    rows[:1] = _default_row(feature)
    for piece, file in files.items():
        first, n_frames = places[piece]
        rows[first : first + n_frames] = np.load(file, "r")
    return rows, places


def _piece(sound: Any) -> Piece | None:
    """What a sound event plays, in whole milliseconds; None if it is too short."""
    offset, duration = _whole_milliseconds(sound.offset, sound.duration)
    if duration < SHORTEST_PIECE:
        return None
    return Piece(sound_digest(sound.filepath), offset, duration, Path(sound.filepath))


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
    cache: Cache,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Timelines, and rows of a feature with one value per event; equal values share one."""
    together = pd.concat(events, ignore_index=True)
    columns = [column for column in feature.columns if column in together]
    alike: np.ndarray = np.arange(len(together))
    if columns:
        alike = together.groupby(columns, dropna=False, sort=False).ngroup().to_numpy()
        together = together[~pd.Series(alike).duplicated()]
    values = _event_values(feature, together, columns, cache)
    feature.dimension = values.shape[1]
    distinct, row = np.unique(values, axis=0, return_inverse=True)
    row_of_event = row.reshape(-1)[alike] + 1
    timelines, first = [], 0
    for table, n in zip(events, n_samples, strict=True):
        timeline = np.zeros(n, dtype=np.int32)
        for index, samples in enumerate(_spans(table, n, sample_rate)):
            if feature.only_onset:
                samples = slice(samples.start, samples.start + 1)
            timeline[samples] = row_of_event[first + index]
        timelines.append(timeline)
        first += len(table)
    return timelines, np.concatenate([_default_row(feature), distinct])


def _event_values(
    feature: EventFeature, events: pd.DataFrame, columns: Sequence[str], cache: Cache
) -> np.ndarray:
    """Values [n, F] of distinct events, from the cache if the feature wants them kept there."""
    about = feature.cache_key(events) if columns else None
    if about is None:
        return feature.values(events).astype(np.float32)
    content = [events[column].astype(str).tolist() for column in columns]
    key = {"feature": feature.name, "version": feature.version, "arguments": about}

    def build(folder: Path) -> None:
        np.save(folder / VALUES, feature.values(events).astype(np.float32))

    key |= {"columns": list(columns), "events": digest(content)}
    return np.load(cache.entry("features", key, build, feature.name) / VALUES)


def _spans(events: pd.DataFrame, n_samples: int, sample_rate: float) -> list[slice]:
    """Samples of each event, from its start up to, not including, its end."""
    starts = events["start"].to_numpy(float)
    stops = starts + events["duration"].to_numpy(float)
    first = np.ceil(starts * sample_rate - 1e-6).astype(int).clip(0, n_samples)
    last = np.ceil(stops * sample_rate - 1e-6).astype(int).clip(0, n_samples)
    return [slice(*span) for span in zip(first.tolist(), last.tolist(), strict=True)]


def _default_row(feature: Feature) -> np.ndarray:
    return np.full((1, feature.dimension), feature.default, dtype=np.float32)
