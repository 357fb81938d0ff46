"""Retrieval beyond top-10: for which words, against how many candidates, by which mean.

Enters: a retrieval. Leaves: tables. Single trials throughout: nothing is averaged over listeners
or repetitions before it is retrieved.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy

from bm.core.messages import DataError
from bm.evaluation.retrieval import Retrieval
from bm.evaluation.statistics import crossed_interval, hits, interval
from bm.features.base import EventFeature
from bm.features.text import TAGS, PartOfSpeech
from bm.features.words import WordFrequency
from bm.metrics import chance
from bm.segments.anchors import PREFIX

logger = logging.getLogger(__name__)

SIZES = (20, 50, 100, 200, 500, 1000, 2000, 5000)
LENGTHS = (1, 3, 5, 8)
POSITIONS = (0, 1, 3, 6, 10)
FREQUENCIES = (0.0, 4.0, 5.0, 6.0, 7.0)
"""Lower ends of the groups: letters, place in the sentence, and Zipf frequency."""
LABELS = ("word", "word_index", "word_sequence")
"""What the part of speech follows from."""


@dataclass(frozen=True)
class Measure:
    """A number that sums up a retrieval, and what guessing gives.

    Attributes
    ----------
    name : what it is.
    value, chance : measured, and by guessing; shares where `is_share`, else ranks counted from 1.
    """

    name: str
    value: float
    chance: float
    is_share: bool = True


def accuracy_by_candidates(
    retrieval: Retrieval, k: int, sizes: Sequence[int] = SIZES
) -> pd.DataFrame:
    """Top-k accuracy if there were fewer candidates: the truth and random others.

    The expectation over all such choices follows from the rank alone: of r better candidates, fewer
    than k must be among those drawn (hypergeometric distribution).

    Returns
    -------
    DataFrame with columns n_candidates, accuracy, chance; the last row is for all candidates.
    """
    n_all = retrieval.n_candidates
    better = np.ceil(retrieval.table["rank"].to_numpy(float))
    rows = []
    for size in [*(size for size in sizes if k < size < n_all), n_all]:
        accuracy = scipy.stats.hypergeom.cdf(k - 1, n_all - 1, better, size - 1).mean()
        rows.append({"n_candidates": size, "accuracy": float(accuracy), "chance": chance(k, size)})
    return pd.DataFrame(rows)


def breakdown(retrieval: Retrieval, k: int) -> pd.DataFrame:
    """Top-k accuracy by length, frequency, part of speech and position of the anchoring word.

    Frequency and part of speech are those of ``dset.extra_test_features=[WordFrequency,
    PartOfSpeech]`` if they were asked for, else found here, where that can be.

    Returns
    -------
    DataFrame with columns by, group, accuracy, low and high (95 % over subjects; NaN for fewer than
    three), n_segments; groups without segments are left out. Chance is the same in all groups.
    """
    table = retrieval.table
    values, subjects = hits(table["rank"], k), table["subject"].to_numpy()
    rows = []
    for name, groups in _groupings(table).items():
        for group in groups.cat.categories:
            own = (groups == group).to_numpy()
            if not own.any():
                continue
            found = interval(values[own], subjects[own])
            low, high = (np.nan, np.nan) if found is None else (found.low, found.high)
            rows.append(
                {
                    "by": name,
                    "group": group,
                    "accuracy": values[own].mean(),
                    "low": low,
                    "high": high,
                    "n_segments": int(own.sum()),
                }
            )
    return pd.DataFrame(rows, columns=["by", "group", "accuracy", "low", "high", "n_segments"])


def measures(retrieval: Retrieval, k: int) -> list[Measure]:
    """Means over other units than the segment, the median rank, and word-level accuracy."""
    table, guessing = retrieval.table, chance(k, retrieval.n_candidates)
    right = pd.Series(hits(table["rank"], k))
    found = [Measure(f"top-{k}, mean over segments", float(right.mean()), guessing)]
    units = {"subjects": "subject", "different words": "word", "sentences": "word_sequence"}
    for name, column in units.items():
        if column in table and table[column].notna().any():
            labels = table[column].astype(str).str.lower().where(table[column].notna())
            mean = right.groupby(labels.to_numpy()).mean().mean()
            found.append(Measure(f"top-{k}, mean over {name}", float(mean), guessing))
    middle = (retrieval.n_candidates + 1) / 2
    median = float(table["rank"].median()) + 1
    found.append(Measure("median rank (1 is best)", median, middle, is_share=False))
    n_words = retrieval.n_words
    for size in (1, k):
        if size < n_words and "word_rank" in table and table["word_rank"].notna().any():
            name = f"word-level top-{size} of {n_words:,} words"
            accuracy = retrieval.word_accuracy(size)
            found.append(Measure(name, accuracy, chance(size, n_words)))
    return found


def intervals(retrieval: Retrieval, k: int) -> list[tuple[str, float, float]]:
    """Name and ends of the 95 % intervals of the top-k accuracy: over whom it is generalised."""
    table = retrieval.table
    values, subjects = hits(table["rank"], k), table["subject"].to_numpy()
    found = [interval(values, subjects)]
    if "word_sequence" in table and table["word_sequence"].notna().all():
        sentences = table["word_sequence"].to_numpy(str)
        found.append(interval(values, sentences, over="sentences"))
        found.append(crossed_interval(values, subjects, sentences))
    return [(one.over, one.low, one.high) for one in found if one is not None]


def _groupings(table: pd.DataFrame) -> dict[str, "pd.Series[str]"]:
    """Group of each segment's word, a categorical [N] in order; missing where it isn't known."""
    found = {}
    if "word" in table and table["word"].notna().any():
        letters = table["word"].astype(str).str.count(r"\w").where(table["word"].notna())
        found["letters"] = _binned(letters.to_numpy(float), LENGTHS)
        frequency = _anchor_values(table, WordFrequency)
        if frequency is not None:
            found["Zipf frequency"] = _binned(frequency, FREQUENCIES)
        tag = _anchor_values(table, PartOfSpeech)
        if tag is not None:
            found["part of speech"] = _named(np.nan_to_num(tag).astype(int) - 1, TAGS)
    if "word_index" in table and table["word_index"].notna().any():
        found["place in the sentence"] = _binned(table["word_index"].to_numpy(float), POSITIONS)
    return found


def _binned(numbers: np.ndarray, edges: Sequence[float]) -> "pd.Series[str]":
    """Which of the groups that begin at `edges` each number is in."""
    labels = [_label(edges, group) for group in range(len(edges))]
    return _named(np.where(np.isnan(numbers), 0, np.digitize(numbers, edges)) - 1, labels)


def _named(places: np.ndarray, labels: Sequence[str]) -> "pd.Series[str]":
    """Label at each place, in their order; missing where it is -1."""
    return pd.Series(pd.Categorical.from_codes(places, pd.Index(labels), ordered=True))


def _anchor_values(table: pd.DataFrame, kind: type[EventFeature]) -> np.ndarray | None:
    """[N] feature of the anchoring words; None where it can't be known, which is logged."""
    name = f"{PREFIX}{kind.__name__}"
    if name in table:
        return table[name].to_numpy(float)
    if "language" not in table:
        return None
    columns = [name for name in (*LABELS, "language") if name in table]
    is_known = table["word"].notna() & table["language"].notna()
    keys = table[columns].astype(str).agg("\0".join, axis=1)
    words = table[is_known & ~keys.duplicated()]
    try:
        values = kind().values(words)[:, 0]
    except (ImportError, DataError, ValueError) as error:
        logger.info("No accuracy by %s: %s", kind.__name__, error)
        return None
    of_word = pd.Series(values, index=keys[words.index].to_numpy())
    return keys.map(of_word).where(is_known).to_numpy(float)


def _label(edges: Sequence[float], group: int) -> str:
    low = edges[group]
    if group + 1 == len(edges):
        return f"{low:g} or more"
    high = edges[group + 1]
    whole = all(float(edge).is_integer() for edge in edges) and isinstance(low, int)
    if whole:
        return f"{low}" if high - low == 1 else f"{low} to {high - 1}"
    return f"below {high:g}" if group == 0 else f"{low:g} to {high:g}"
