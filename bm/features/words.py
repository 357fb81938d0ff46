"""Features of the words that were heard: where they begin, which they are, how long and how rare.

Enters: word events. Leaves: one number a word.
"""

import logging
from collections.abc import Iterable
from types import ModuleType
from typing import ClassVar

import numpy as np
import pandas as pd

from bm.core.hashing import text_id
from bm.core.messages import DataError, check_choice
from bm.features.base import EventFeature, register
from bm.features.language import AUTO, event_languages, language_code

logger = logging.getLogger(__name__)

MODALITIES = {"audio": 1, "visual": 2}
RAREST = 1.0
"""Zipf frequency, once in 100 million words: what the frequency lists end with."""


@register
class WordPulse(EventFeature):
    """1 at the first sample of each word, else 0."""

    normalizable = False
    only_onset: ClassVar[bool] = True

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] ones."""
        return np.ones((len(events), 1), dtype=np.float32)


@register
class WordSegment(EventFeature):
    """Whether a word is heard: class 1 from its onset to its end, else class 0."""

    normalizable = False
    cardinality = 2

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] ones."""
        return np.ones((len(events), 1), dtype=np.float32)


@register
class WordLength(EventFeature):
    """Number of letters and digits of the word, without the punctuation around and in it.

    What has none, such as a dash, counts as 1 and is logged.
    """

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] lengths."""
        words = word_texts(events, self.name)
        lengths = words.map(lambda word: sum(letter.isalnum() for letter in word))
        log_missing(self.name, "without a letter count as 1 long", words[lengths == 0])
        return _column(lengths.clip(lower=1))


@register
class WordIndex(EventFeature):
    """Position of the word in its sentence, 0 for the first; -1 where no word is heard."""

    @property
    def default(self) -> float:
        """Not the position of any word."""
        return -1.0

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] positions."""
        given = events.get("word_index", pd.Series(np.nan, index=events.index))
        index = pd.to_numeric(given, errors="coerce").astype(float)
        bad = index.isna() | (index < 0)
        if bad.any():
            raise DataError(
                f"{self.name}: {int(bad.sum())} of {len(events)} words have no word_index, the "
                f"position in their sentence (first: {events['word'][bad].iloc[0]!r})."
            )
        return _column(index)


@register
class WordFrequency(EventFeature):
    """How frequent the word is in its language, on the Zipf scale: log10 of uses per billion words.

    From the lists of the package wordfreq. Words that aren't listed count as used once in 100
    million words (1.0, where the longest lists end), and are logged.

    Parameters
    ----------
    lang : language of all words, or "auto": the events tell.
    """

    def __init__(self, lang: str = AUTO):
        self.lang = lang if lang == AUTO else language_code(lang)

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] Zipf frequencies, from `RAREST` to about 7.7."""
        wordfreq = _wordfreq()
        words = word_texts(events, self.name)
        languages = event_languages(events, self.lang, self.name)
        for language in languages.unique():
            check_choice(f"{self.name}: language", language, wordfreq.available_languages())
        pairs = list(zip(words, languages, strict=True))
        zipf = {pair: wordfreq.zipf_frequency(*pair) for pair in set(pairs)}
        missing = [zipf[pair] == 0 for pair in pairs]
        if all(missing):
            raise DataError(
                f"{self.name}: none of the words is in the frequency list of "
                f"{', '.join(languages.unique())}. Is that their language?"
            )
        log_missing(self.name, f"not in the list count as {RAREST}", words[missing])
        return _column([max(RAREST, zipf[pair]) for pair in pairs])


@register
class WordHash(EventFeature):
    """A number that names the word, regardless of case: 1 and up, 0 where no word is heard.

    The number follows from the word's text alone (SHA-256, divided among the buckets), so it is the
    same in every process and on every machine, unless that bucket belongs to another word of the
    experiment: so few buckets can't hold all words of a language apart. Then the word with the
    smaller digest keeps the bucket and the other takes the next free one. So no two words of an
    experiment share a number, and the same vocabulary always gets the same numbers; between
    experiments with different vocabularies, just the words that had to move can differ (logged;
    some 20 of 2,000).

    Parameters
    ----------
    buckets : numbers there are, 0 included; there must be more than words.
    """

    normalizable = False

    def __init__(self, buckets: int = 100_000):
        if not 2 <= buckets <= 1 << 24:
            raise ValueError(f"buckets={buckets} must lie between 2 and 2**24 (exact in float32).")
        self.buckets = int(buckets)
        self.cardinality = self.buckets

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] numbers of the words."""
        words = word_texts(events, self.name).str.lower()
        return _column(words.map(self._numbers(words.unique())))

    def _numbers(self, vocabulary: Iterable[str]) -> dict[str, int]:
        """Number of each word."""
        by_digest = sorted((text_id(word), word) for word in vocabulary)
        if len(by_digest) >= self.buckets:
            raise ValueError(
                f"{len(by_digest)} different words need more than "
                f"dset.features_params.WordHash.buckets={self.buckets}."
            )
        owner: dict[int, str] = {}
        moved = []
        for number, word in by_digest:
            bucket = 1 + number % (self.buckets - 1)
            if owner.setdefault(bucket, word) != word:
                moved.append((bucket, word))
        for bucket, word in moved:  # after all others, so that nobody else loses a bucket
            while bucket in owner:
                bucket = 1 + bucket % (self.buckets - 1)
            owner[bucket] = word
        if moved:
            logger.info(
                "%s: %d of %d words share a bucket with another and took the next free one.",
                self.name, len(moved), len(by_digest),
            )  # fmt: skip
        return {word: bucket for bucket, word in owner.items()}


@register
class Modality(EventFeature):
    """How the word was presented: class 1 heard ("audio"), 2 read ("visual"), 0 where none is."""

    normalizable = False
    cardinality = 1 + len(MODALITIES)

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] classes."""
        given = events.get("modality", pd.Series(None, index=events.index, dtype=object))
        for value in given.unique():
            check_choice("Modality: modality of a word", value, MODALITIES)
        return _column(given.map(MODALITIES))


def word_texts(events: pd.DataFrame, feature: str) -> "pd.Series[str]":
    """Text of each word; numbers as they are spoken of ("61", even if read as 61.0).

    Raises
    ------
    DataError : a word is missing or empty.
    """
    words = events["word"].map(_as_text, na_action="ignore")
    empty = words.isna() | (words == "")
    if empty.any():
        where = int(np.flatnonzero(empty)[0])
        raise DataError(
            f"{feature}: {int(empty.sum())} of {len(events)} words are empty (the first: word "
            f"{where + 1}). Drop these events, or fill in what was said."
        )
    return words.astype(str)


def log_missing(feature: str, what: str, words: "pd.Series[str]") -> None:
    """Log how many words got a default, and which are the most frequent of them."""
    if len(words):
        counts = words.value_counts()
        examples = ", ".join(f"{word!r} ({n})" for word, n in counts.head(5).items())
        more = ", ..." if len(counts) > 5 else ""
        logger.warning(
            "%s: %d words (%d different) %s: %s%s",
            feature, len(words), len(counts), what, examples, more,
        )  # fmt: skip


def _as_text(word: object) -> str:
    if isinstance(word, float) and word.is_integer():
        word = int(word)
    return str(word).strip()


def _column(values: "pd.Series[float] | list[float]") -> np.ndarray:
    return np.asarray(values, dtype=np.float32)[:, None]


def _wordfreq() -> ModuleType:
    """The package, imported late: it is optional.

    Raises
    ------
    ImportError : it isn't installed; the message says how to.
    """
    try:
        import wordfreq
    except ImportError as error:
        raise ImportError(
            "WordFrequency needs the package wordfreq. Run: pip install bm[text]   "
            "(or: pip install wordfreq)"
        ) from error
    return wordfreq
