"""The event table: one row per thing heard (or read), in seconds of the recording.

Columns that every table has: ``kind`` (sound, word, phoneme, block, ...), ``start`` and
``duration`` in seconds. Further ones depend on the kind:

==========  ======================================================================================
sound       ``filepath``; ``offset``: where in the file the event begins, in seconds
word        ``word``, ``word_index`` (position in its sentence), ``word_sequence`` (the sentence)
phoneme     ``phoneme``
block       ``uid``: the text whose hash decides the split
unlabelled  something was heard here, but what isn't known: no segment overlaps it
any         ``modality`` (audio, visual), ``language``, ``condition``, ``sequence_uid``
==========  ======================================================================================
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from pyarrow.parquet import ParquetFile

from bm.core.messages import DataError, did_you_mean

logger = logging.getLogger(__name__)

UNLABELLED = "unlabelled"
REQUIRED = {"sound": ["filepath"], "word": ["word"], "phoneme": ["phoneme"], "block": ["uid"]}


def validate_events(events: pd.DataFrame, duration: float, source: str) -> pd.DataFrame:
    """Return a clean copy of `events` in time order, or say what is wrong with them.

    Repeated rows and events outside the recording are dropped, counted and logged. A sound that was
    playing when the recording began is cut there.

    Parameters
    ----------
    events : table with at least ``kind``, ``start`` and ``duration``.
    duration : length of the recording in seconds.
    source : what to call this table in messages (the recording, or the file).

    Raises
    ------
    DataError : a column is missing, or an onset, duration or label is not usable.
    """
    for column in ("kind", "start", "duration"):
        if column not in events:
            raise DataError(
                f"{source}: no column {column!r}. {did_you_mean(column, events.columns)}"
            )
    events = events.reset_index(drop=True).copy()
    for column in ("start", "duration"):
        events[column] = _as_seconds(events, column, source)
    _check_labels(events, source)
    if not events["start"].is_monotonic_increasing:
        logger.warning("%s: events were not in time order; sorted.", source)
        events = events.sort_values("start", kind="stable", ignore_index=True)
    events = _drop(events, events.duplicated(), source, "repeated event(s)")
    events = _cut_at_start(_with_offsets(events, source), source)
    outside = (events["start"] < 0) | (events["start"] >= duration)
    if len(events) and outside.all():
        raise DataError(
            f"{source}: all {len(events)} events lie outside the recording's {duration:.3f} s, the "
            f"first at {events['start'].iloc[0]:.3f}. Are onsets in seconds from its first sample?"
        )
    return _drop(events, outside, source, f"event(s) outside the recording's {duration:.3f} s")


def write_events(events: pd.DataFrame, path: Path) -> None:
    """Store a table so that `read_events` gives back the same values, the word "None" included."""
    events.to_parquet(path, index=False)


def read_events(path: Path) -> pd.DataFrame:
    """Read a table stored with `write_events`."""
    events: pd.DataFrame = ParquetFile(path).read().to_pandas()  # pd.read_parquet loads far more
    return events


def match_events(events: pd.DataFrame, query: str, key: str, source: str) -> np.ndarray:
    """Which events [n] match a pandas query, such as ``kind == "word"``.

    Parameters
    ----------
    events : table.
    query, key : of the configuration.
    source : whose events these are, for the message.

    Raises
    ------
    ValueError : the query doesn't parse, or names what isn't a column.
    """
    try:  # without the variables of this place, which a query could name after an @
        return np.asarray(events.eval(query, local_dict={}, global_dict={}), dtype=bool)
    except Exception as error:  # pandas raises a dozen types for a malformed query
        raise ValueError(
            f"{key}={query!r} can't be evaluated on {source}: {error}. Columns: {list(events)}."
        ) from error


def _as_seconds(events: pd.DataFrame, column: str, source: str) -> "pd.Series[float]":
    seconds = pd.to_numeric(events[column], errors="coerce").astype(float)
    bad = ~np.isfinite(seconds)
    if column == "duration":
        endless = (events["kind"] == "block") & (seconds == np.inf)  # the last block has no end
        bad = (bad & ~endless) | (seconds < 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{source}: row {row}: {column}={str(events[column].iloc[row])!r} is not "
            f"{'a time' if column == 'start' else 'a length of time'} in seconds "
            f"({int(bad.sum())} such row(s))."
        )
    return seconds


def _check_labels(events: pd.DataFrame, source: str) -> None:
    if events["kind"].isna().any():
        raise DataError(
            f"{source}: row {int(np.flatnonzero(events['kind'].isna())[0])} has no kind."
        )
    for kind, columns in REQUIRED.items():
        of_kind = events["kind"] == kind
        for column in columns if of_kind.any() else ():
            if column not in events:
                raise DataError(f"{source}: {kind} events need a column {column!r}.")
            empty = of_kind & (
                events[column].isna() | (events[column].astype(str).str.strip() == "")
            )
            if empty.any():
                row = int(np.flatnonzero(empty)[0])
                raise DataError(
                    f"{source}: row {row}: a {kind} without {column} ({int(empty.sum())} in all)."
                )


def _with_offsets(events: pd.DataFrame, source: str) -> pd.DataFrame:
    """Give each sound the place in its file where it begins: 0 unless the table says otherwise."""
    is_sound = events["kind"] == "sound"
    if not is_sound.any():
        return events
    given = events["offset"] if "offset" in events else pd.Series(np.nan, index=events.index)
    offsets = pd.to_numeric(given, errors="coerce").astype(float)
    bad = is_sound & ((offsets < 0) | (offsets.isna() & given.notna()))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{source}: row {row}: offset={str(given.iloc[row])!r} is not a place in a sound file, "
            "in seconds."
        )
    events["offset"] = offsets.where(~is_sound | offsets.notna(), 0.0)
    return events


def _cut_at_start(events: pd.DataFrame, source: str) -> pd.DataFrame:
    """Let sounds that began before the recording begin with it, further on in their file."""
    playing = (events["kind"] == "sound") & (events["start"] < 0)
    playing &= events["start"] + events["duration"] > 0
    if not playing.any():
        return events
    missed = -events["start"].where(playing, 0.0)
    logger.warning(
        "%s: %d sound(s) began up to %.3f s before the recording; cut there.",
        source,
        playing.sum(),
        missed.max(),
    )
    return events.assign(
        start=events["start"] + missed,
        duration=events["duration"] - missed,
        offset=events["offset"] + missed,
    )


def _drop(events: pd.DataFrame, drop: "pd.Series[bool]", source: str, what: str) -> pd.DataFrame:
    if not drop.any():
        return events
    logger.warning(
        "%s: %d %s dropped (first at %.3f s).",
        source,
        drop.sum(),
        what,
        events["start"][drop].iloc[0],
    )
    return events[~drop].reset_index(drop=True)
