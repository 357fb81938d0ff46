"""Blocks of stimulus, and the split each belongs to.

A block is a stretch of recording that goes as a whole to test, valid or train. Which one is decided
by a hash of its *content*, so the same sentence lands in the same split for every subject.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bm.core.messages import DataError, check_choice
from bm.events.table import UNLABELLED

SPLITS = ("test", "valid", "train")
SPLIT_SEED = 12
BLOCK_RULES = ("sentence", "sound", "sentence_or_sound")
WORD_CONDITIONS = ("sentence", "context", "question", "fixation", "word_list")
EPSILON = 1e-7
CONTENT = ("kind", "sequence_uid", "condition", "word", "filepath", "offset")
"""Columns that say what a block holds."""


def create_blocks(events: pd.DataFrame, rule: str = "sentence") -> pd.DataFrame:
    """Cut a recording into blocks that follow each other without a gap; the last one has no end.

    Parameters
    ----------
    events : event table in time order (see `bm.events.table`).
    rule : what opens a block: "sentence" (a word of index 0), "sound" (a sound), or
        "sentence_or_sound" (a sound, or a word of index 0 that was read).

    Returns
    -------
    DataFrame with kind "block", start, duration and uid (the content whose hash decides the split).

    Raises
    ------
    DataError : no event opens a block, or two open one at the same time.
    """
    check_choice("block rule", rule, BLOCK_RULES)
    starts = events["start"][_opens_block(events, rule)].to_numpy(float)
    if not len(starts):
        raise DataError(
            f"No event opens a block (rule {rule!r}): is a word of index 0, or a sound, missing?"
        )
    if (np.diff(starts) <= 0).any():
        when = starts[1:][np.diff(starts) <= 0][0]
        raise DataError(f"Two blocks start at {when:.3f} s (rule {rule!r}): are events repeated?")
    columns = [name for name in CONTENT if name in events]
    stimuli = events.loc[events["kind"] != "block", [*columns, "start", "duration"]]
    event_start = stimuli["start"].to_numpy(float)
    event_stop = event_start + stimuli["duration"].to_numpy(float)
    ends = np.append(starts[1:], np.nanmax(event_stop) + EPSILON)
    uids = []
    for first, last, end in zip(
        np.searchsorted(event_start, starts), np.searchsorted(event_start, ends), ends, strict=True
    ):
        begun = stimuli.iloc[first:last]
        uids.append(_content(begun[event_stop[first:last] < end]) or _opening(begun))
    durations = np.append(np.diff(starts), np.inf)
    return pd.DataFrame({"kind": "block", "start": starts, "duration": durations, "uid": uids})


def merge_blocks(
    blocks: pd.DataFrame, min_duration: float = 6.0, events: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Join successive blocks until each lasts more than `min_duration` seconds.

    The first merged block starts at 0 and so holds the silence before the first stimulus.

    As published, a group's length is counted from the end of the previous one, the first from the
    start of the recording: with another lead-in the groups, and so the splits, can differ between
    recordings. Given the `events`, length is counted in stimulus time instead (from the first to
    the last event within each block) and no group goes over from one sound to the next, so that
    every recording of the same stimuli has the same groups. Where a recording begins with a stretch
    that isn't labelled, the first sentence can be the rest of one, whose group for those who heard
    it whole can't be known: it is in no block.
    """
    if min_duration <= 0:
        return blocks
    begin = 0.0
    if events is not None and _begins_unlabelled(blocks, events) and len(blocks) > 1:
        blocks = blocks.iloc[1:].reset_index(drop=True)
        begin = float(blocks["start"].iloc[0])
    stops = (blocks["start"] + blocks["duration"]).to_numpy(float)
    lengths, breaks = (None, None) if events is None else _stimulus_time(blocks, events)
    merged = []
    start, group, length = begin, [], 0.0
    for index, (uid, stop) in enumerate(zip(blocks["uid"], stops, strict=True)):
        group.append(uid)
        if lengths is None or breaks is None:
            full = stop > start + min_duration
        else:
            length += lengths[index]
            full = length > min_duration or breaks[index]
        if full or index == len(blocks) - 1:
            merged.append(
                {"kind": "block", "start": start, "duration": stop - start, "uid": ",".join(group)}
            )
            start, group, length = stop, [], 0.0
    return pd.DataFrame(merged)


def assign_splits(
    blocks: pd.DataFrame,
    test_ratio: float = 0.2,
    valid_ratio: float = 0.1,
    remove_ratio: float = 0.0,
    min_blocks: int = 1,
    seed: int = SPLIT_SEED,
) -> pd.DataFrame:
    """Add the column ``split`` (test, valid, train or removed) from the hash of each block's uid.

    Raises
    ------
    ValueError : the ratios leave nothing to train on, or a split has too few blocks.
    """
    ratios = {"test": test_ratio, "valid": valid_ratio, "removed": remove_ratio}
    if any(ratio < 0 for ratio in ratios.values()) or sum(ratios.values()) >= 1:
        raise ValueError(
            f"Split ratios must be positive and leave a rest to train on, but they are {ratios}."
        )
    ratios["train"] = 1 - sum(ratios.values())
    names = [name for name, ratio in ratios.items() if ratio > 0]
    bounds = np.cumsum([ratios[name] for name in names])
    splits = [
        names[int(np.searchsorted(bounds, _score(uid, seed), side="right"))]
        for uid in blocks["uid"]
    ]
    _check_counts(splits, min_blocks)
    return blocks.assign(split=splits)


def _opens_block(events: pd.DataFrame, rule: str) -> "pd.Series[bool]":
    is_sound = events["kind"] == "sound"
    if rule == "sound":
        return is_sound
    if "word_index" not in events:
        return is_sound if rule == "sentence_or_sound" else is_sound & False
    first_word = (events["kind"] == "word") & (events["word_index"] == 0)
    if rule == "sentence":
        return first_word
    return (
        is_sound | (first_word & (events["modality"] == "visual"))
        if "modality" in events
        else is_sound
    )


def _content(events: pd.DataFrame) -> str:
    """Text that names what a block holds, the same for everyone who heard it; "" if nothing does.

    `events` are those that lie within the block from start to end.
    """
    if "sequence_uid" in events and len(events):
        uids = events["sequence_uid"].unique()
        if len(uids) == 1 and not pd.isna(uids[0]):
            return _canonical(uids[0])
    if "condition" in events and "word" in events:
        read_out = events["condition"].isin(WORD_CONDITIONS) & (events["kind"] != "phoneme")
        if read_out.any():
            return " ".join(str(word) for word in events["word"][read_out])
    return ""


def _canonical(uid: object) -> str:
    """Text of an id; 61.0 is "61", as whole numbers turn to floats in a column with gaps."""
    if isinstance(uid, float) and uid.is_integer():
        return str(int(uid))
    return str(uid)


def _opening(events: pd.DataFrame) -> str:
    """Text that names what begins in a block: its sounds, else its words.

    Sounds are named by file name and the place in the file; the published rule (full path, onset
    in the recording) gives another split on another machine.
    """
    sounds = events[events["kind"] == "sound"]
    if len(sounds):
        offsets = sounds["offset"] if "offset" in sounds else pd.Series(0.0, index=sounds.index)
        places = zip(sounds["filepath"], offsets, strict=True)
        return " ".join(f"{Path(file).name} {offset:.3f}" for file, offset in places)
    return " ".join(str(word) for word in events["word"][events["kind"] == "word"])


def _begins_unlabelled(blocks: pd.DataFrame, events: pd.DataFrame) -> bool:
    """Whether something unknown was heard before the first block."""
    unknown = events["start"][events["kind"] == UNLABELLED]
    return bool((unknown < blocks["start"].iloc[0]).any())


def _stimulus_time(blocks: pd.DataFrame, events: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Length of each block's stimuli in seconds, and whether the next block begins a new sound."""
    stimuli = events[events["kind"].isin(["word", "phoneme"])]
    if not len(stimuli):
        stimuli = events[events["kind"] == "sound"]
    onsets = stimuli["start"].to_numpy(float)
    offsets = onsets + stimuli["duration"].to_numpy(float)
    starts = blocks["start"].to_numpy(float)
    stops = np.append(starts[1:], np.inf)
    lengths = np.zeros(len(blocks))
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        inside = (onsets >= start) & (onsets < stop)
        # Rounded to 1 us: the same stimulus gives the same number at any place in a recording.
        lengths[index] = round(offsets[inside].max() - start, 6) if inside.any() else 0.0
    sound_starts = events["start"][events["kind"] == "sound"].to_numpy(float)
    n_begun = np.searchsorted(sound_starts, starts + EPSILON, side="right")
    breaks = np.append(np.diff(n_begun) > 0, True)
    return lengths, breaks


def _score(uid: str, seed: int) -> float:
    """Number in [0, 1) that depends on the text alone."""
    value = int(hashlib.sha256(str(uid).encode()).hexdigest(), 16)
    return random.Random(value + seed).random()


def _check_counts(splits: Sequence[str], min_blocks: int) -> None:
    counts: Mapping[str, int] = {name: splits.count(name) for name in sorted(set(splits))}
    too_few = {
        name: count for name, count in counts.items() if count < min_blocks and name != "removed"
    }
    if too_few:
        raise ValueError(
            f"Fewer than dset.min_n_blocks_per_split={min_blocks} block(s) in {too_few} "
            f"(all: {counts}). Lower that number, lower dset.min_block_duration, "
            "or use longer recordings."
        )
