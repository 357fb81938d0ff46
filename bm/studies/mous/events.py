"""From the lines of a MOUS log, timed by the recording, to events.

Enters: lines with ``seconds`` in the recording and what their codes mean. Leaves: sounds with their
words and phonemes, or words that were read. As published (Défossez et al. 2023), sounds begin with
the line "Audio onset", 46 ms after the file was started, though times in the file count from there.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bm.core.messages import DataError
from bm.studies.mous.codes import CONDITION_OF
from bm.studies.mous.stimuli import ALIGNMENTS, Stimuli

logger = logging.getLogger(__name__)

AFTER_ITS_WORD = 1e-6
"""Seconds that published phonemes are later, so that a word comes before its first one."""


def heard(
    rows: pd.DataFrame, stimuli: Stimuli, source: str, delay: float = 0.0, faithful: bool = False
) -> pd.DataFrame:
    """Sounds, and the words and phonemes in them.

    Parameters
    ----------
    rows : lines in order, with ``seconds`` and the columns of `bm.studies.mous.codes.read_codes`.
    stimuli : files and texts.
    source : the recording, for messages.
    delay : seconds from the start of a sound file to its sound at the ear.
    faithful : place sounds as published, and let them end with their last word.
    """
    sounds = _sounds(rows.reset_index(drop=True), source, faithful)
    spoken = [stimuli.spoken(number) for number in sounds["number"]]
    _check_words(sounds["number"], spoken, stimuli, source)
    files = [stimuli.sound(number) for number in sounds["number"]]
    ends = [float((each["start"] + each["duration"]).max() if len(each) else 0) for each in spoken]
    durations = stimuli.lengths.of(files, ends, str(stimuli.root / ALIGNMENTS))
    sounds["duration"] = ends if faithful else durations
    sounds["filepath"] = [str(file) for file in files]
    parts = [
        _sound_with_speech(sound, each, stimuli, delay, faithful)
        for sound, each in zip(sounds.itertuples(), spoken, strict=True)
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def seen(
    rows: pd.DataFrame, stimuli: Stimuli, source: str, delay: float = 0.0, faithful: bool = False
) -> pd.DataFrame:
    """Words that were shown one by one; an item goes from one fixation cross to the next.

    Parameters are those of `heard`.
    """
    number = (rows["what"].isin(["fixation"] if faithful else ["fixation", "context"])).cumsum()
    words = rows[(rows["what"] == "word")].assign(item=number)
    if faithful:
        words["condition"] = words["condition"].where(words["condition"] != "init", None)
    else:
        words = _whole_items(words[number.loc[words.index] > 0], source)
        by_trigger = words["trigger"].map(CONDITION_OF)
        words["condition"] = words["condition"].where(words["condition"] != "", by_trigger)
        words["text"] = words["text"].str.rstrip(".")
    words = words[words["text"] != ""]
    texts = words.groupby("item")["text"].agg(" ".join)
    find = stimuli.number_as_published if faithful else stimuli.number
    numbers = {item: find(text) for item, text in texts.items()}
    unknown = [text for item, text in texts.items() if numbers[item] is None]
    if unknown:
        logger.warning(
            "%s: %d item(s) are not in stimuli.txt and are told by their words (first: %r).",
            source, len(unknown), unknown[0],
        )  # fmt: skip
    uids = words["item"].map(numbers).map(_as_text).astype(object)
    return pd.DataFrame(
        {
            "kind": "word",
            "start": words["seconds"] + delay,
            "duration": words["duration"].fillna(0.0),
            "word": words["text"],
            "word_index": words.groupby("item").cumcount().astype(float),
            "word_sequence": words["item"].map(texts),
            "sequence_id": uids.where(uids.notna(), "line " + words["item"].astype(str)),
            "sequence_uid": uids,
            "condition": words["condition"],
        }
    ).reset_index(drop=True)


def _sounds(rows: pd.DataFrame, source: str, faithful: bool) -> pd.DataFrame:
    """Number, start and condition of each sound; `rows` are numbered from 0."""
    marks = rows["what"][rows["what"].isin(["sound", "onset"])]
    sounds = []
    for index in np.flatnonzero(rows["what"] == "sound").tolist():
        row = rows.iloc[index]
        after = rows.loc[marks.loc[index:].index[1:2]]
        after = after[after["what"] == "onset"]
        if faithful and list(after.index) != [index + 1]:
            raise DataError(
                f"{source}: sound file {row['text']} is not followed by an audio onset in the log. "
                "With faithful=False none is needed."
            )
        begin = after.iloc[0] if faithful else row
        by_trigger = after["trigger"].map(CONDITION_OF)
        condition = row["condition"] or next(iter(by_trigger.dropna()), None)
        sounds.append((int(row["text"]), float(begin["seconds"]), condition))
    return pd.DataFrame(sounds, columns=["number", "start", "condition"])


def _check_words(
    numbers: Iterable[int], spoken: Sequence[pd.DataFrame], stimuli: Stimuli, source: str
) -> None:
    """Log how many sounds have no words; raise if none has any."""
    without = [number for number, words in zip(numbers, spoken, strict=True) if not len(words)]
    if without and len(without) == len(spoken):
        raise DataError(
            f"{stimuli.alignment(without[0])} is missing or empty, and so are those of all other "
            "sounds. The TextGrids aren't part of the collection: align its sounds with WebMAUS "
            "(Dutch) and put them there."
        )
    if without:
        logger.warning(
            "%s: %d sound(s) have no words: %s is missing or empty.",
            source, len(without), stimuli.alignment(without[0]),
        )  # fmt: skip


def _sound_with_speech(
    sound: Any, spoken: pd.DataFrame, stimuli: Stimuli, delay: float, faithful: bool
) -> pd.DataFrame:
    """The events of one sound."""
    text = " ".join(spoken["word"].dropna())
    if faithful:
        uid: int | None = stimuli.number_as_published(text)
        later = (spoken["kind"] == "phoneme") * AFTER_ITS_WORD
        spoken = spoken.assign(start=spoken["start"] + later)
    else:
        uid = stimuli.number(text)
    row = {"kind": "sound", "start": 0.0, "duration": sound.duration, "offset": 0.0}
    events = pd.concat([pd.DataFrame([row]), spoken], ignore_index=True)
    events["start"] += sound.start + delay
    is_sound = events["kind"] == "sound"
    for column, value in (("condition", sound.condition), ("word_sequence", text)):
        events[column] = pd.Series(value, events.index, dtype=object).where(~is_sound, None)
    events["filepath"] = pd.Series(sound.filepath, events.index).where(is_sound, None)
    return events.assign(sequence_id=str(sound.number), sequence_uid=_as_text(uid))


def _whole_items(words: pd.DataFrame, source: str) -> pd.DataFrame:
    """Leave out items that were being shown when the recording began: they lack their beginning."""
    times = words.groupby("item")["seconds"]
    cut = (times.transform("first") < 0) & (times.transform("last") >= 0)
    if cut.any():
        logger.warning("%s: the item shown when it began is left out.", source)
    return words[~cut]


def _as_text(number: int | None) -> str | None:
    """Id of an item: "61", and not "61.0", which another split would follow from."""
    return None if pd.isna(number) else str(int(number))
