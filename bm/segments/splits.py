"""The three splits of a set of recordings, over one shared store."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from bm.core.hashing import text_id
from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.events.blocks import SPLITS
from bm.features import FeatureTable, word_mask
from bm.segments.dataset import SegmentDataset
from bm.segments.gather import Stimuli
from bm.segments.prepare import Prepared
from bm.segments.store import SignalStore
from bm.segments.windows import WindowRule, find_windows

logger = logging.getLogger(__name__)

EMPTY = ("time", "first", "event", "recording")


@dataclass(frozen=True)
class Splits:
    """Segments of all splits, and what their indices mean.

    Attributes
    ----------
    datasets : by name: train, valid, test.
    prepared : recordings by index.
    subjects : names of subjects (``study/subject``) by index.
    layouts : [L, C, 2 or 3] sensor positions by layout index.
    set_aside : recordings that can't be used, each with the reason (see `bm.segments.prepare`).
    """

    datasets: dict[str, SegmentDataset]
    prepared: list[Prepared]
    subjects: list[str]
    layouts: torch.Tensor
    set_aside: Mapping[str, str] = field(default_factory=dict)

    @property
    def recordings(self) -> list[str]:
        """Names of the recordings (``study/recording``) by index."""
        return [str(prepared.recording) for prepared in self.prepared]


def build_splits(
    prepared: Sequence[Prepared],
    tables: Sequence[FeatureTable],
    rules: Mapping[str, WindowRule],
    store: SignalStore,
    baseline: bool = True,
    event_mask: bool = True,
    n_subjects_test: int | None = None,
    allow_empty_split: bool = False,
    n_dimensions: int = 2,
) -> Splits:
    """Find the segments of each split.

    A recording without segments in a split is left out of it; one without any for training is left
    out altogether, since its scale would be unknown. Both are logged.

    Parameters
    ----------
    prepared, tables, store : recordings, their features and their signals, in the same order.
    rules : windows of each split.
    baseline : subtract the mean over the samples up to the anchor from each sensor.
    event_mask : whether the mask marks the words, or is 1 throughout.
    n_subjects_test : test on the first so many subjects only, in sorted order; None: all.
    allow_empty_split : whether a split may have no segments at all.
    n_dimensions : of sensor positions, see `bm.recordings.sensors.Sensors.places`.

    Raises
    ------
    DataError : a split has no segments.
    """
    subjects = sorted({_subject(item) for item in prepared})
    chosen = {**dict.fromkeys(SPLITS, subjects), "test": subjects[:n_subjects_test]}
    layout_of, layouts = _layouts(prepared, store.n_sensors, n_dimensions)
    tables_of: dict[str, pd.DataFrame] = {}
    for split in ("train", "valid", "test"):
        table = _find_segments(prepared, split, rules[split], chosen[split])
        if split != "train":
            table = _only_trained(table, set(tables_of["train"]["recording"]), prepared, split)
        if not len(table) and not allow_empty_split:
            raise DataError(_why_empty(split, rules[split], prepared))
        names = [_subject(prepared[index]) for index in table["recording"]]
        tables_of[split] = table.assign(
            subject=[subjects.index(name) for name in names],
            layout=[layout_of[index] for index in table["recording"]],
        )
        logger.info(
            "%s: %d segments of %d recordings, %d subjects.",
            split, len(table), table["recording"].nunique(), len(set(names)),
        )  # fmt: skip
    sample_rate = prepared[0].signal.sample_rate
    stimuli = _stimuli(prepared, tables, store, event_mask)
    datasets = {}
    for split, table in tables_of.items():
        rule = rules[split]
        n_baseline = round(-rule.tmin * sample_rate) + 1 if baseline and rule.tmin <= 0 else 0
        n_times = rule.n_times(sample_rate)
        datasets[split] = SegmentDataset(table, store, stimuli, n_times, n_baseline)
    return Splits(datasets, list(prepared), subjects, layouts)


def identify(table: pd.DataFrame) -> np.ndarray:
    """[n] integers that are equal for segments anchored at the same word of the same sentence.

    A segment that isn't anchored at a word of a sentence is known by the moment of the sound that
    it holds, to 10 ms, and without any sound by its recording and sample.
    """
    keys = pd.Series(list(zip(table["recording"], table["first"], strict=True)), table.index)
    for label, place, digits in (("sound", "sound_time", 2), ("word_sequence", "word_index", 0)):
        if label in table and place in table:
            known = table[label].notna() & table[place].notna()
            places = table[place][known].astype(float).round(digits)
            keys[known] = list(zip(table[label][known].astype(str), places, strict=True))
    return np.array([text_id(*key) for key in keys], dtype=np.int64)


def _find_segments(
    prepared: Sequence[Prepared], split: str, rule: WindowRule, subjects: Collection[str]
) -> pd.DataFrame:
    """Windows of all recordings of these subjects, with the index of their recording."""
    parts = []
    for index, item in enumerate(prepared):
        if _subject(item) not in subjects:
            continue
        blocks = item.blocks[item.blocks["split"] == split]
        signal = item.signal
        windows = find_windows(item.events, blocks, rule, signal.n_samples, signal.sample_rate)
        if len(windows):
            parts.append(_add_sound(windows, item.events).assign(recording=index))
        else:
            logger.warning("%s: no segments in %s (%d blocks).", item.recording, split, len(blocks))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=EMPTY)


def _only_trained(
    table: pd.DataFrame, trained: Collection[int], prepared: Sequence[Prepared], split: str
) -> pd.DataFrame:
    """Leave out the recordings that have no training segments."""
    keep = table["recording"].isin(trained)
    for index in table["recording"][~keep].unique():
        source = prepared[index].recording
        logger.warning("%s: no training segments, so left out of %s.", source, split)
    return table[keep].reset_index(drop=True)


def _stimuli(
    prepared: Sequence[Prepared],
    tables: Sequence[FeatureTable],
    store: SignalStore,
    event_mask: bool,
) -> Stimuli:
    n_samples = [item.signal.n_samples for item in prepared]
    events = [item.events for item in prepared]
    masks = word_mask(events, n_samples, prepared[0].signal.sample_rate)
    if not event_mask:
        masks = [np.ones_like(mask) for mask in masks]
    home = store.home
    return Stimuli(
        [table.feature for table in tables],
        [_rows(table, store) for table in tables],
        [torch.from_numpy(np.concatenate(table.timelines)).to(home) for table in tables],
        torch.from_numpy(np.concatenate(masks)).to(home),
    )


def _rows(table: FeatureTable, store: SignalStore) -> torch.Tensor:
    """Rows where the signals are, and in their type unless they tell classes apart.

    Raises
    ------
    DataError : that type can't hold them.
    """
    rows = torch.from_numpy(table.rows).to(store.home)
    if not table.feature.normalizable:
        return rows
    stored = rows.to(store.dtype)
    if store.is_half and not torch.equal(stored.isfinite(), rows.isfinite()):
        raise DataError(
            f"{table.feature.name} has values that are too large for half precision: choose "
            "dset.storage=fp32 or bf16."
        )
    return stored


def _add_sound(windows: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Add ``sound`` (file name) and ``sound_time`` (seconds in the file) heard at the anchor."""
    sounds = events[events["kind"] == "sound"]
    if not len(sounds) or not len(windows):
        return windows
    starts = sounds["start"].to_numpy(float)
    stops = starts + sounds["duration"].to_numpy(float)
    latest = np.searchsorted(starts, windows["time"].to_numpy(float), side="right") - 1
    heard = (latest >= 0) & (windows["time"].to_numpy(float) < stops[latest])
    names = sounds["filepath"].to_numpy()[latest]
    times = (
        windows["time"].to_numpy(float) - starts[latest] + sounds["offset"].to_numpy(float)[latest]
    )
    return windows.assign(
        sound=pd.Series(names, windows.index, dtype=object).where(heard, None),
        sound_time=np.where(heard, times, np.nan),
    )


def _subject(item: Prepared) -> str:
    return f"{item.recording.study}/{item.recording.subject_uid}"


def _layouts(
    prepared: Sequence[Prepared], n_sensors: int, n_dimensions: int
) -> tuple[list[int], torch.Tensor]:
    """Index of each recording's layout, and the distinct layouts [L, C, n_dimensions], padded."""
    distinct: dict[bytes, int] = {}
    layouts: list[np.ndarray] = []
    index = []
    for item in prepared:
        padded = np.full((n_sensors, n_dimensions), NO_POSITION, dtype=np.float32)
        positions = item.signal.sensors.places(n_dimensions)
        padded[: len(positions)] = positions
        number = distinct.setdefault(padded.tobytes(), len(distinct))
        if number == len(layouts):
            layouts.append(padded)
        index.append(number)
    return index, torch.from_numpy(np.stack(layouts))


def _why_empty(split: str, rule: WindowRule, prepared: Sequence[Prepared]) -> str:
    n_blocks = sum(int((item.blocks["split"] == split).sum()) for item in prepared)
    kinds = sorted({kind for item in prepared for kind in item.events["kind"]})
    return (
        f"The {split} split has no segments: {n_blocks} block(s) in {len(prepared)} recording(s), "
        f"windows of {rule.tmin}..{rule.tmax} s at {rule.condition!r} (events: "
        f"{', '.join(kinds)}). Blocks must be longer than the window: raise "
        "dset.min_block_duration, shorten the window (dset.tmin, dset.tmax), or set "
        "dset.allow_empty_split=true if this split isn't needed."
    )
