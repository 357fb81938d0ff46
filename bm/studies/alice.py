"""The words of brennan2019, and when each was heard.

Enters: the csv of the story, in either release, and a listener's table of trials. Leaves: words
with their onset in the recording, and the onset of each sound.
"""

import csv
import io
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from bm.core.messages import DataError, did_you_mean
from bm.events import create_blocks
from bm.recordings.sound import END_TOLERANCE
from bm.studies.formats.files import read_text
from bm.studies.formats.tsv import fail, numbers_of

logger = logging.getLogger(__name__)

SAMPLE_RATE = 500.0
"""Hz of the samples that tables of trials count."""
NUMBERS = {"Segment": 1, "onset": 0, "offset": 0, "Order": 1, "Sentence": 1}
"""Columns of the story that must be numbers, and the least each can be."""
SPREADSHEET = {"TRUE": "true", "FALSE": "false"}
"""Words that a spreadsheet took for truth values (second release)."""
LOST_APOSTROPHE = "\x1a"
SAME_TIME = 0.01
"""Seconds by which trials of one sound may differ, being rounded to samples."""
SAME_SPREAD = 0.1
"""Seconds of difference between two explanations of the times that makes neither the better one."""
PAUSE = 1.0
"""Seconds between two sounds where their order alone matters."""
GAP = 0.04
"""Seconds between two sounds in a recording, at the least."""


def read_story(path: Path) -> pd.DataFrame:
    """Read the story's words, in their order.

    Returns
    -------
    DataFrame, one row for each word:

    - ``word``, and ``text``: the same as it stands in the file;
    - ``segment``: number of its sound, from 1;
    - ``onset`` and ``duration`` in that sound, in seconds;
    - ``order``: number by which trials name it (some are missing);
    - ``sentence``: number, and ``sequence_uid``: the text whose hash decides the sentence's split.

    Raises
    ------
    DataError : the file is missing or not UTF-8, or a line makes no sense; the message names it.
    """
    table = _read_csv(path)
    numbers = {
        column: numbers_of(table, column, path, minimum=minimum, required=True)
        for column, minimum in NUMBERS.items()
    }
    empty = table["Word"].isna()
    if empty.any():
        fail(path, table.index[empty], "Word", "the cell is empty")
    repeated = numbers["Order"].duplicated()
    if repeated.any():
        fail(path, table.index[repeated], "Order", "the number stands in two lines")
    backwards = numbers["offset"] < numbers["onset"]
    if backwards.any():
        fail(path, table.index[backwards], "offset", "the word ends before it begins")
    text = table["Word"].replace(SPREADSHEET)
    story = pd.DataFrame(
        {
            "word": text.str.replace(LOST_APOSTROPHE, "'", regex=False),
            "text": text,
            "segment": numbers["Segment"].astype(int),
            "onset": numbers["onset"],
            "duration": numbers["offset"] - numbers["onset"],
            "order": numbers["Order"].astype(int),
            "sentence": numbers["Sentence"].astype(int),
        }
    ).sort_values(["segment", "onset"], kind="stable", ignore_index=True)
    return story.assign(sequence_uid=_contents(story, path))


def sound_starts(trials: pd.DataFrame, story: pd.DataFrame, path: Path) -> "pd.Series[float]":
    """Onset of each sound in seconds of the recording, by segment, from the trials of its words.

    Trials tell the sample at which a word began, counted from 1: a sound's trigger plus the word's
    time in the sound, cut down to whole samples. So the latest of a sound's trials is nearest to
    its trigger.

    Where triggers are missing at the beginning, the labels of trials are too low by that number,
    and so their words and times in the sound are those of another one. The times between sounds
    tell which it is.

    Raises
    ------
    DataError : trials of one sound disagree, or the times between sounds don't fit the story.
    """
    onsets = (trials["begin"] - trials["offset"]) / SAMPLE_RATE - trials["tmin"]
    by_label = onsets.groupby(trials["segment"].astype(int))
    spread = by_label.max() - by_label.min()
    if (spread > SAME_TIME).any():
        raise DataError(
            f"{path}: trials of segment {spread.idxmax()} place its sound at times that differ by "
            f"{spread.max():.3f} s. Is it the table of this study, as published?"
        )
    starts = by_label.max()
    starts.index = starts.index + _n_lost(starts, story, path)
    return starts


def word_onsets(
    trials: pd.DataFrame, story: pd.DataFrame, starts: "pd.Series[float]", path: Path
) -> "pd.Series[float]":
    """Onset of each word in seconds of the recording; NaN in sounds without one.

    It is that of the word's trial. Words without a trial, or whose trial was another word's, begin
    at their time in the sound.
    """
    onsets = story["segment"].map(starts) + story["onset"]
    by_order = trials.drop_duplicates("Order").set_index("Order")
    trial = by_order.reindex(story["order"]).set_index(story.index)
    trial_onsets = (trial["begin"] - trial["offset"]) / SAMPLE_RATE
    is_its_own = (trial_onsets - onsets).abs() < SAME_TIME
    n_other = len(trials) - int(is_its_own.sum())
    if n_other and is_its_own.any():
        logger.warning("%s: %d trial(s) fit no word of the story: not used.", path, n_other)
    return onsets.where(~is_its_own, trial_onsets)


def published_onsets(
    trials: pd.DataFrame, story: pd.DataFrame, path: Path
) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """Onsets of words and of sounds (by segment) as published: 0.3 s early, trials by row."""
    if len(trials) != len(story):
        raise DataError(
            f"{path}: {len(trials)} trials, but the story has {len(story)} words. The published "
            "code joins them by row; with faithful=false they are joined by what they say."
        )
    onsets = (trials["begin"] / SAMPLE_RATE).set_axis(story.index)
    starts = (onsets - story["onset"]).groupby(story["segment"]).first()
    return onsets, starts


def _n_lost(starts: "pd.Series[float]", story: pd.DataFrame, path: Path) -> int:
    """Number of sounds at the beginning whose trigger is missing, so that labels are too low."""
    ends = (story["onset"] + story["duration"]).groupby(story["segment"]).max()
    labels = starts.index.to_numpy()
    n_sounds = int(ends.index.max())
    if labels.min() < 1 or labels.max() > n_sounds:
        raise DataError(
            f"{path}: segments {labels.min()} to {labels.max()}, but the story has {n_sounds}."
        )
    if labels.max() == n_sounds:
        return 0
    follows = np.diff(labels) == 1
    spreads = {}
    for n_lost in range(n_sounds - labels.max() + 1):
        spoken = ends.reindex(labels[:-1] + n_lost).to_numpy(float)
        pauses = (np.diff(starts.to_numpy(float)) - spoken)[follows]
        if (pauses > -END_TOLERANCE).all():
            spreads[n_lost] = np.ptp(pauses) if len(pauses) else 0.0
    if not spreads:
        raise DataError(
            f"{path}: the times between its {len(labels)} sounds fit no stretch of the story. Is "
            "it the table of this study, as published?"
        )
    least = min(spreads.values())
    n_lost = max(number for number, spread in spreads.items() if spread <= least + SAME_SPREAD)
    if n_lost:
        logger.warning(
            "%s: the trigger(s) of the first %d sound(s) are missing, and the other %d are "
            "labelled as earlier ones: corrected. No segment is taken from the first %.0f s: "
            "what was heard there isn't known.",
            path,
            n_lost,
            len(labels),
            starts.min(),
        )
    return n_lost


def _contents(story: pd.DataFrame, path: Path) -> "pd.Series[str]":
    """Content of the block that each word's sentence is, as in a recording of the whole story.

    So a sentence has the same content for those who missed a part of it.
    """
    ends = (story["onset"] + story["duration"]).groupby(story["segment"]).max() + PAUSE
    begins = ends.shift(fill_value=0.0).cumsum()
    events = pd.DataFrame(
        {
            "kind": "word",
            "condition": "sentence",
            "word": story["text"],
            "start": story["segment"].map(begins) + story["onset"],
            "duration": story["duration"],
            "word_index": story.groupby("sentence").cumcount(),
        }
    )
    try:
        blocks = create_blocks(events)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    uids = dict(zip(story["sentence"].unique(), blocks["uid"], strict=True))
    return story["sentence"].map(uids)


def _read_csv(path: Path) -> pd.DataFrame:
    """Texts by column, whatever columns there are beside the needed ones; empty: None."""
    lines = csv.reader(io.StringIO(read_text(path), newline=""))
    header = [name.strip() for name in next(lines, [])]
    for column in ("Word", *NUMBERS):
        if column not in header:
            raise DataError(f"{path}: no column {column!r}. {did_you_mean(column, header)}")
    rows, numbers = [], []
    for row in lines:
        if not any(row):
            continue
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {lines.line_num}: {len(row)} cells, but the header has "
                f"{len(header)}. Is the file truncated? Download it again."
            )
        rows.append([cell or None for cell in row])
        numbers.append(lines.line_num)
    if not rows:
        raise DataError(f"{path}: no words. Download it again.")
    return pd.DataFrame(rows, columns=header, index=numbers, dtype=object)
