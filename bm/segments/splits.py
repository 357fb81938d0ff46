"""The three splits of a set of recordings, over one shared store."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from bm.core.hashing import text_id
from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.events.blocks import SPLITS
from bm.features import Feature, FeatureTable, word_mask
from bm.segments.dataset import SegmentDataset, Stimuli
from bm.segments.prepare import Prepared
from bm.segments.store import SignalStore
from bm.segments.windows import WindowRule, find_windows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Segments of all splits, and what their indices mean.

    Attributes
    ----------
    datasets : by name: train, valid, test.
    prepared : recordings by index.
    subjects : names of subjects (``study/subject``) by index.
    layouts : [L, C, 2] sensor positions by layout index.
    """

    datasets: dict[str, SegmentDataset]
    prepared: list[Prepared]
    subjects: list[str]
    layouts: torch.Tensor

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
    n_subjects: int | None = None,
    n_subjects_test: int | None = None,
    allow_empty_split: bool = False,
) -> Splits:
    """Find the segments of each split.

    A recording without segments in a split is left out of it; one without any for training is left out
    altogether, since its scale would be unknown. Both are logged.

    Parameters
    ----------
    prepared, tables, store : recordings, their features and their signals, in the same order.
    rules : windows of each split.
    baseline : subtract the mean over the samples up to the anchor from each sensor.
    event_mask : whether the mask marks the words, or is 1 throughout.
    n_subjects : train, validate and test on the first so many subjects (in sorted order); None: all.
    n_subjects_test : test on the first so many of these only.
    allow_empty_split : whether a split may have no segments at all.

    Raises
    ------
    DataError : a split has no segments.
    """
    subjects = sorted({_subject(item) for item in prepared})
    layout_of, layouts = _layouts(prepared, store.n_sensors)
    n_samples = [item.signal.n_samples for item in prepared]
    sample_rate = prepared[0].signal.sample_rate
    events = [item.events for item in prepared]
    masks = word_mask(events, n_samples, sample_rate)
    if not event_mask:
        masks = [np.ones_like(mask) for mask in masks]
    stimuli = Stimuli.join(tables, masks, store.home)
    chosen = {split: subjects[:n_subjects] for split in SPLITS}
    chosen["test"] = chosen["test"][:n_subjects_test]
    has_train: set[int] = set()
    datasets = {}
    for split in ("train", "valid", "test"):
        rule = rules[split]
        rows = []
        for index, item in enumerate(prepared):
            if _subject(item) in chosen[split]:
                windows = _windows(item, split, rule)
                if split != "train" and len(windows) and index not in has_train:
                    logger.warning("%s: no training segments, so left out of %s.", item.recording, split)
                    continue
                rows.append(
                    windows.assign(
                        recording=index, subject=subjects.index(_subject(item)), layout=layout_of[index]
                    )
                )
        table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
        if not len(table) and not allow_empty_split:
            raise DataError(_why_empty(split, rule, prepared))
        if split == "train":
            has_train = set(table["recording"]) if len(table) else set()
        if not len(table):
            table = pd.DataFrame({name: [] for name in ("first", "recording", "subject", "layout")})
        n_baseline = round(-rule.tmin * sample_rate) + 1 if baseline and rule.tmin <= 0 else 0
        datasets[split] = SegmentDataset(table, store, stimuli, rule.n_times(sample_rate), n_baseline)
        logger.info(
            "%s: %d segments of %d recordings, %d subjects.",
            split, len(table), table["recording"].nunique(), table["subject"].nunique(),
        )  # fmt: skip
    return Splits(datasets, list(prepared), subjects, layouts)


def identify(table: pd.DataFrame) -> np.ndarray:
    """[n] integers that are equal for segments anchored at the same word of the same sentence.

    Where segments aren't anchored at words, each is known by the sound that it holds (see
    `build_splits`), and without any sound by its recording and time.
    """
    if "word_sequence" in table and table["word_sequence"].notna().all():
        keys = zip(table["word_sequence"], table["word_index"].astype(int), strict=True)
    elif "sound" in table and table["sound"].notna().all():
        keys = zip(table["sound"], table["sound_time"].round(2), strict=True)
    else:
        keys = zip(table["recording"], table["first"], strict=True)
    return np.array([text_id(*key) for key in keys], dtype=np.int64)


def describe_features(features: Sequence[Feature]) -> list[tuple[str, int]]:
    """Name and size of each feature."""
    return [(feature.name, feature.dimension) for feature in features]


def _windows(item: Prepared, split: str, rule: WindowRule) -> pd.DataFrame:
    blocks = item.blocks[item.blocks["split"] == split]
    signal = item.signal
    windows = find_windows(item.events, blocks, rule, signal.n_samples, signal.sample_rate)
    if not len(windows):
        logger.warning("%s: no segments in %s (%d blocks).", item.recording, split, len(blocks))
    return _add_sound(windows, item.events)


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
    times = windows["time"].to_numpy(float) - starts[latest] + sounds["offset"].to_numpy(float)[latest]
    return windows.assign(
        sound=[str(name) if here else None for name, here in zip(names, heard, strict=True)],
        sound_time=np.where(heard, times, np.nan),
    )


def _subject(item: Prepared) -> str:
    return f"{item.recording.study}/{item.recording.subject_uid}"


def _layouts(prepared: Sequence[Prepared], n_sensors: int) -> tuple[list[int], torch.Tensor]:
    """Index of each recording's layout, and the distinct layouts [L, C, 2], padded."""
    distinct: dict[bytes, int] = {}
    layouts, index = [], []
    for item in prepared:
        padded = np.full((n_sensors, 2), NO_POSITION, dtype=np.float32)
        positions = item.signal.sensors.positions
        padded[: len(positions)] = positions
        number = distinct.setdefault(padded.tobytes(), len(distinct))
        if number == len(layouts):
            layouts.append(padded)
        index.append(number)
    return index, torch.from_numpy(np.stack(layouts))


def _why_empty(split: str, rule: WindowRule, prepared: Sequence[Prepared]) -> str:
    n_blocks = sum(int((item.blocks["split"] == split).sum()) for item in prepared)
    return (
        f"The {split} split has no segments: {n_blocks} block(s) in {len(prepared)} recording(s), "
        f"windows of {rule.tmin}..{rule.tmax} s at {rule.condition!r}. Blocks must be longer than the "
        f"window: raise dset.min_block_duration, shorten the window (dset.tmin, dset.tmax), or set "
        f"dset.allow_empty_split=true if this split isn't needed."
    )
