"""Words in their sentences: which stretch of text each word event is.

Enters: word events with ``word``, ``word_index`` and ``word_sequence``. Leaves: for each a text and
the place of the word in it, without the punctuation around it.
"""

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from bm.core.messages import DataError
from bm.features.words import log_missing, word_texts


class Place(NamedTuple):
    """A stretch of a text."""

    text: str
    begin: int
    end: int


def locate_words(events: pd.DataFrame, feature: str) -> list[Place]:
    """Place of each word in its sentence.

    The word is looked for at its ``word_index`` among the words of the sentence, then nearest to
    it, regardless of case and punctuation. A word that isn't found, or has no sentence, becomes its
    own sentence; these are counted and logged.

    Raises
    ------
    DataError : a word is empty, or there is no sentence at all.
    """
    words = word_texts(events, feature)
    sentences = events.get("word_sequence", pd.Series(np.nan, index=events.index, dtype=object))
    if sentences.isna().all():
        raise DataError(
            f"{feature}: the words come without their sentences (column word_sequence), which are "
            "the context that it needs."
        )
    index = pd.to_numeric(
        events.get("word_index", pd.Series(0, index=events.index)), errors="coerce"
    ).fillna(0)
    known: dict[tuple[object, ...], Place | None] = {}
    found = []
    for occurrence in zip(words, sentences, index.astype(int), strict=True):
        if occurrence not in known:
            word, sentence, position = occurrence
            known[occurrence] = (
                _find(word, sentence, position) if isinstance(sentence, str) else None
            )
        found.append(known[occurrence])
    alone = [place is None for place in found]
    log_missing(feature, "not found in a sentence are taken without context", words[alone])
    return [
        isolated(word) if place is None else place for word, place in zip(words, found, strict=True)
    ]


def isolated(word: str) -> Place:
    """The word as its own text."""
    return _without_punctuation(word, 0, len(word))


def _find(word: str, sentence: str, position: int) -> Place | None:
    spans = _spans(sentence)
    wanted = _letters(word)
    n = len(word.split())  # "New York" is one word in some studies
    last = len(spans) - n
    for start in (position, *sorted(range(last + 1), key=lambda start: abs(start - position))):
        if 0 <= start <= last:
            begin, end = spans[start][0], spans[start + n - 1][1]
            if _letters(sentence[begin:end]) == wanted:
                return _without_punctuation(sentence, begin, end)
    return None


@lru_cache(maxsize=256)
def _spans(sentence: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S+", sentence)]


def _letters(text: str) -> str:
    """What two spellings of a word have in common; the text itself if there are no letters."""
    letters = "".join(letter for letter in text.casefold() if letter.isalnum())
    return letters or text


def _without_punctuation(text: str, begin: int, end: int) -> Place:
    letters = [place for place in range(begin, end) if text[place].isalnum()]
    return Place(text, letters[0], letters[-1] + 1) if letters else Place(text, begin, end)
