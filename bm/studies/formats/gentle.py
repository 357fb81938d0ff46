"""Forced alignments written by Gentle: when each word and phoneme of a sound file is heard.

Enters: a `.json` file. Leaves: tables of words and phonemes, in seconds of the sound.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bm.core.messages import DataError, did_you_mean
from bm.studies.formats.files import read_json_object

logger = logging.getLogger(__name__)

ALIGNED = "success"
CASES = (ALIGNED, "not-found-in-audio", "not-found-in-transcript")


@dataclass(frozen=True)
class Alignment:
    """What is known of the words in a sound.

    Attributes
    ----------
    transcript : the text that was aligned; "" if the file has none.
    words : ``word``, ``start``, ``duration``, and ``first`` and ``last``: its place in the
        transcript, in characters (NaN if the file doesn't say). Words that were not found in the
        sound are left out.
    phonemes : ``phoneme``, ``start``, ``duration``, and ``of``: row of its word.
    """

    transcript: str
    words: pd.DataFrame
    phonemes: pd.DataFrame


def read_alignment(path: Path) -> Alignment:
    """Read what Gentle wrote; words without a time are counted and logged.

    Raises
    ------
    DataError : the file is missing, truncated, not UTF-8, or not by Gentle; the message names it.
    """
    content = _read_json(path)
    words: list[dict[str, Any]] = []
    phonemes: list[dict[str, Any]] = []
    n_lost = 0
    for number, entry in enumerate(content["words"], start=1):
        where = f"{path}, word {number}"
        if not isinstance(entry, dict) or entry.get("case") not in CASES:
            raise DataError(f"{where}: no 'case' of {', '.join(CASES)} in {str(entry)[:60]!r}.")
        if entry["case"] != ALIGNED:
            n_lost += 1
            continue
        phonemes.extend(_phonemes(entry, where, len(words)))
        words.append(_word(entry, where))
    if not words:
        raise DataError(f"{path}: no word was found in the sound. Is it the right file?")
    if n_lost:
        logger.info("%s: %d of %d words have no time.", path, n_lost, n_lost + len(words))
    transcript = content.get("transcript", "")
    of_word = pd.DataFrame(phonemes, columns=["phoneme", "start", "duration", "of"])
    return Alignment(transcript, pd.DataFrame(words), of_word)


def places_fit(alignment: Alignment) -> bool:
    """Whether the transcript has each word at the place that the file gives for it."""
    words = alignment.words
    if words[["first", "last"]].isna().to_numpy().any():
        return False
    return all(
        alignment.transcript[int(first) : int(last)].lower() == word.lower()
        for word, first, last in zip(words["word"], words["first"], words["last"], strict=True)
    )


def _word(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    word = entry.get("word")
    if not isinstance(word, str) or not word.strip():
        raise DataError(f"{where}: a word without text ('word').")
    start, end = _seconds(entry, "start", where), _seconds(entry, "end", where)
    if end < start:
        raise DataError(f"{where} ({word!r}): it ends at {end} s, before it begins at {start} s.")
    first, last = (
        float(place) if isinstance(place := entry.get(key), int) else np.nan
        for key in ("startOffset", "endOffset")
    )
    return {"word": word, "start": start, "duration": end - start, "first": first, "last": last}


def _phonemes(entry: Mapping[str, Any], where: str, row: int) -> list[dict[str, Any]]:
    """Phonemes of a word; the file has their durations, and they follow each other."""
    phones = entry.get("phones", [])
    if not isinstance(phones, list) or not all(
        isinstance(phone, dict) and isinstance(phone.get("phone"), str) for phone in phones
    ):
        raise DataError(f"{where}: 'phones' is no list of phonemes with their durations.")
    durations = [_seconds(phone, "duration", where) for phone in phones]
    starts = accumulate(durations, initial=_seconds(entry, "start", where))
    return [
        {"phoneme": phone["phone"], "start": start, "duration": duration, "of": row}
        for phone, start, duration in zip(phones, starts, durations, strict=False)
    ]


def _seconds(entry: Mapping[str, Any], key: str, where: str) -> float:
    value = entry.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise DataError(f"{where}: {key}={value!r} is no time in seconds.")


def _read_json(path: Path) -> dict[str, Any]:
    content = read_json_object(path)
    if not isinstance(content.get("words"), list):
        hint = did_you_mean("words", content)
        raise DataError(f"{path}: no list 'words'. {hint} Is it by Gentle?")
    if not isinstance(content.get("transcript", ""), str):
        raise DataError(f"{path}: 'transcript' is no text. Is it by Gentle?")
    return content
