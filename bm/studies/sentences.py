"""Which words of a table form a sentence.

Enters: words in time order, and what the file says about sentences. Leaves: the words with
``sequence_id`` (running number of the sentence), ``word_index`` and ``word_sequence``.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

logger = logging.getLogger(__name__)


def add_sentences(
    words: pd.DataFrame,
    path: Path,
    index: "pd.Series[float] | None" = None,
    sentences: "pd.Series[str] | None" = None,
    sound_starts: "pd.Series[float] | None" = None,
) -> pd.DataFrame:
    """Group words into sentences.

    Parameters
    ----------
    words : word events in time order, indexed by line of the file.
    path : the file, for messages.
    index : position of each word in its sentence, if the file has it; counted if not.
    sentences : text or id of the sentence in all lines of the file, missing where there is none: a
        sentence goes on while it stays the same.
    sound_starts : seconds; without `index` and `sentences`, each sound is a sentence.
    """
    if not len(words):
        return words
    if index is not None:
        index = index - index.min()  # some count from 1
    if sentences is not None:
        begins = _changes(sentences, words.index, path)
        if index is not None:
            begins |= index.diff() < 0
    elif index is not None:
        begins = (index == 0) | (index.diff() < 0)
    else:
        begins = _first_in_sound(words, sound_starts, path)
    number = begins.cumsum()
    if index is None:
        index = words.groupby(number).cumcount().astype(float)
    text = words["word"].groupby(number).transform(" ".join)
    return words.assign(sequence_id=number.astype(str), word_index=index, word_sequence=text)


def _changes(sentences: "pd.Series[str]", words: pd.Index, path: Path) -> "pd.Series[bool]":
    """Mark words at which another sentence begins, or before which a line names another one."""
    empty = sentences.loc[words].isna()
    if empty.any() and not empty.all():
        logger.warning(
            "%s: %d word(s) have no sentence (first: line %d); each run of them counts as one.",
            path, empty.sum(), words[empty][0],
        )  # fmt: skip
    telling = sentences[sentences.index.isin(words) | sentences.notna()].fillna("")
    run = (telling != telling.shift()).cumsum()
    return run.loc[words].diff() != 0


def _first_in_sound(
    words: pd.DataFrame, sound_starts: "pd.Series[float] | None", path: Path
) -> "pd.Series[bool]":
    starts = np.sort([] if sound_starts is None else sound_starts.to_numpy(float))
    if not len(starts):
        logger.warning("%s: neither sentences nor sounds: all words count as one sentence.", path)
    sound = np.searchsorted(starts, words["start"].to_numpy(float), side="right")
    return pd.Series(sound, index=words.index).diff() != 0
