"""From recordings to what segments need: signal, events cut at block borders, blocks, features.

A recording that can't be used is set aside with its reason; the others go on.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bm.core.cache import Cache
from bm.core.messages import DataError, check_choice
from bm.core.progress import progress
from bm.events import (
    UNLABELLED,
    assign_splits,
    create_blocks,
    cut_sounds_at_blocks,
    merge_blocks,
    read_events,
    write_events,
)
from bm.features import Feature, FeatureTable, build_table
from bm.recordings import Recording, Signal
from bm.recordings.sound import END_TOLERANCE, sound_duration

logger = logging.getLogger(__name__)

VERSION = 1
"""Of how blocks are found and sounds cut: raise it whenever the same events give others."""
EVENTS, BLOCKS = "events.parquet", "blocks.parquet"
GROUPINGS = ("recording_time", "stimulus_time")


@dataclass(frozen=True)
class BlockRule:
    """How recordings are divided into blocks, and blocks among the splits (see `bm.events.blocks`).

    Attributes
    ----------
    test_ratio, valid_ratio, remove_ratio : shares of the blocks; the rest is for training.
    min_block_duration : seconds; shorter blocks are merged with the next.
    force_uid_assignement : never merge.
    min_n_blocks_per_split : fewer are an error.
    block_grouping : "recording_time", as published, or "stimulus_time" (see `merge_blocks`).
    split_wav_as_block : cut sounds at block borders, so that features hear nothing beyond.
    """

    test_ratio: float = 0.2
    valid_ratio: float = 0.1
    remove_ratio: float = 0.0
    min_block_duration: float = 6.0
    force_uid_assignement: bool = False
    min_n_blocks_per_split: int = 1
    block_grouping: str = "recording_time"
    split_wav_as_block: bool = True

    def __post_init__(self) -> None:
        check_choice("dset.block_grouping", self.block_grouping, GROUPINGS)


@dataclass(frozen=True)
class Prepared:
    """A recording ready to be cut into segments.

    Attributes
    ----------
    recording : where it comes from.
    signal : preprocessed brain signal.
    events : event table, sounds cut at block borders.
    blocks : blocks with their split.
    """

    recording: Recording
    signal: Signal
    events: pd.DataFrame
    blocks: pd.DataFrame


@dataclass(frozen=True)
class SignalSettings:
    """How brain signals are preprocessed (see `bm.recordings.Preprocessing`)."""

    sample_rate: float = 120.0
    highpass: float = 0.0
    bandpass: tuple[float, float] | None = None
    notch: float | None = None


def prepare(
    recordings: Iterable[Recording],
    signal: SignalSettings,
    blocks: BlockRule,
    on_bad_recording: str = "skip",
    aside: dict[str, str] | None = None,
) -> list[Prepared]:
    """Read, preprocess and divide all recordings.

    Parameters
    ----------
    recordings : in their final order.
    signal, blocks : what to do with them.
    on_bad_recording : "skip" sets a broken recording aside with its reason, "error" stops.
    aside : told the name and the reason of each that was set aside.

    Raises
    ------
    DataError : a recording is broken and `on_bad_recording` is "error", or none is left.
    """
    check_choice("dset.on_bad_recording", on_bad_recording, ("skip", "error"))
    ready = []
    aside = {} if aside is None else aside
    for recording in progress(list(recordings), "recordings", "recording"):
        try:
            ready.append(prepare_one(recording, signal, blocks))
        except DataError as error:
            if on_bad_recording == "error":
                raise
            _set_aside(recording, error, aside)
    if not ready:
        listed = "\n  ".join(aside.values())
        empty = "the selection is empty (is its path right?)"
        raise DataError(f"No recording can be used:\n  {listed or empty}")
    if aside:
        logger.warning("%s", list_aside(aside, len(ready)))
    return ready


def build_tables(
    prepared: Sequence[Prepared],
    features: Sequence[Feature],
    cache: Cache,
    on_bad_recording: str = "skip",
    aside: dict[str, str] | None = None,
) -> tuple[list[Prepared], list[FeatureTable]]:
    """Compute features; whoever heard something that they can't be computed of is set aside.

    Parameters
    ----------
    prepared, features : of what, and which.
    cache : where features are kept.
    on_bad_recording, aside : see `prepare`.

    Returns
    -------
    The recordings that are left, and a table of them for each feature.

    Raises
    ------
    DataError : the fault isn't that of some recordings, or `on_bad_recording` is "error".
    """
    try:
        return list(prepared), [_table(feature, prepared, cache) for feature in features]
    except DataError as error:
        if on_bad_recording == "error":
            raise
        faults = {index: _fault(item, features, cache) for index, item in enumerate(prepared)}
        kept = [item for index, item in enumerate(prepared) if faults[index] is None]
        if not kept or len(kept) == len(prepared):
            raise
        logger.debug("A feature can't be computed of all recordings.", exc_info=error)
    aside = {} if aside is None else aside
    for index, fault in faults.items():
        if fault is not None:
            _set_aside(prepared[index].recording, fault, aside)
    logger.warning("%s", list_aside(aside, len(kept)))
    return kept, [_table(feature, kept, cache) for feature in features]


def list_aside(aside: Mapping[str, str], n_used: int) -> str:
    """``1 recording(s) set aside, 11 used:`` and a line for each that was."""
    return "\n  ".join([f"{len(aside)} recording(s) set aside, {n_used} used:", *aside.values()])


def prepare_one(recording: Recording, signal: SignalSettings, rule: BlockRule) -> Prepared:
    """Prepare one recording (see `prepare`)."""
    events, blocks = _cut_once(recording, rule)
    _check_sounds(events, str(recording))  # each time: files may have changed
    preprocessed = recording.preprocessed(
        signal.sample_rate, signal.highpass, signal.bandpass, signal.notch
    )
    return Prepared(recording, preprocessed, events, blocks)


def divide(recording: Recording, rule: BlockRule) -> pd.DataFrame:
    """Blocks of a recording with their split; they don't depend on its events filter."""
    events = recording.events(filtered=False)
    try:
        blocks = create_blocks(events, recording.block_rule)
    except DataError as error:
        raise DataError(f"{recording}: {error}") from error
    if recording.merge_blocks and not rule.force_uid_assignement:
        in_stimulus_time = events if rule.block_grouping == "stimulus_time" else None
        blocks = merge_blocks(blocks, rule.min_block_duration, in_stimulus_time)
    return assign_splits(
        blocks, rule.test_ratio, rule.valid_ratio, rule.remove_ratio, rule.min_n_blocks_per_split
    )


def _cut_once(recording: Recording, rule: BlockRule) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Events with sounds cut at block borders, and blocks: found once, and kept in the cache."""

    def build(folder: Path) -> None:
        events = recording.events()
        _check_sounds(events, str(recording))
        blocks = divide(recording, rule)
        if recording.events_filter is not None:
            blocks = _only_with_events(blocks, events)
        if rule.split_wav_as_block:
            events = cut_sounds_at_blocks(events, blocks)
        write_events(events, folder / EVENTS)
        write_events(blocks, folder / BLOCKS)

    key = {
        "version": VERSION,
        "events": recording.events_entry().name,
        "events_filter": recording.events_filter,
        "block_rule": recording.block_rule,
        "merge_blocks": recording.merge_blocks,
        "rule": asdict(rule),
    }
    folder = recording.cache.entry("blocks", key, build, str(recording))
    return read_events(folder / EVENTS), read_events(folder / BLOCKS)


def _set_aside(recording: Recording, error: DataError, aside: dict[str, str]) -> None:
    name, reason = str(recording), str(error)
    aside[name] = reason if reason.startswith(name) else f"{name}: {reason}"
    logger.warning("Set aside: %s", aside[name])


def _table(feature: Feature, prepared: Sequence[Prepared], cache: Cache) -> FeatureTable:
    signals = [item.signal for item in prepared]
    n_samples = [signal.n_samples for signal in signals]
    events = [item.events for item in prepared]
    return build_table(feature, events, n_samples, signals[0].sample_rate, cache)


def _fault(item: Prepared, features: Sequence[Feature], cache: Cache) -> DataError | None:
    """Why some feature can't be computed for a recording by itself; None if all can."""
    for feature in features:
        if (item.events["kind"] == feature.event_kind).any():  # others may have such events
            try:
                _table(feature, [item], cache)
            except DataError as error:
                return error
    return None


def _only_with_events(blocks: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Blocks in which an event begins that the filter let through."""
    onsets = events["start"][~events["kind"].isin(["sound", UNLABELLED])].to_numpy(float)
    starts = blocks["start"].to_numpy(float)
    stops = starts + blocks["duration"].to_numpy(float)
    n_within = np.searchsorted(onsets, stops) - np.searchsorted(onsets, starts)
    return blocks[n_within > 0].reset_index(drop=True)


def _check_sounds(events: pd.DataFrame, source: str) -> None:
    """Make sure that each sound event lies within its file."""
    sound: Any  # a named tuple of the table's columns
    for sound in events[events["kind"] == "sound"].itertuples():
        try:
            length = sound_duration(sound.filepath)
        except DataError as error:
            raise DataError(f"{source}: {error}") from error
        needed = sound.offset + sound.duration
        if needed > length + END_TOLERANCE:
            raise DataError(
                f"{source}: the sound at {sound.start:.3f} s needs {needed:.3f} s of "
                f"{sound.filepath}, which lasts {length:.3f} s. Is it the right file, and complete?"
            )
