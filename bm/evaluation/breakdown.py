"""Retrieval beyond top-10: for which words, against how many candidates, by which mean.

Enters: a retrieval. Leaves: tables. Single trials throughout: nothing is averaged over listeners
or repetitions before it is retrieved.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from bm.core.messages import DataError
from bm.evaluation.retrieval import Retrieval
from bm.evaluation.statistics import crossed_interval, hits, interval
from bm.features.words import WordFrequency
from bm.metrics import chance

logger = logging.getLogger(__name__)

SIZES = (20, 50, 100, 200, 500, 1000, 2000, 5000)
LENGTHS = (1, 3, 5, 8)
POSITIONS = (0, 1, 3, 6, 10)
FREQUENCIES = (0.0, 4.0, 5.0, 6.0, 7.0)
"""Lower ends of the groups: letters, place in the sentence, and Zipf frequency."""


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
        accuracy = stats.hypergeom.cdf(k - 1, n_all - 1, better, size - 1).mean()
        rows.append({"n_candidates": size, "accuracy": float(accuracy), "chance": chance(k, size)})
    return pd.DataFrame(rows)


def breakdown(retrieval: Retrieval, k: int) -> pd.DataFrame:
    """Top-k accuracy by length, frequency and position of the anchoring word.

    Returns
    -------
    DataFrame with columns by, group, accuracy, low and high (95 % over subjects; NaN for fewer than
    three), n_segments; groups without segments are left out. Chance is the same in all groups.
    """
    table = retrieval.table
    values, subjects = hits(table["rank"], k), table["subject"].to_numpy()
    rows = []
    for name, (numbers, edges) in _groupings(table).items():
        place = np.digitize(numbers, edges) - 1
        for group in range(len(edges)):
            own = (place == group) & ~np.isnan(numbers)
            if not own.any():
                continue
            found = interval(values[own], subjects[own])
            low, high = (np.nan, np.nan) if found is None else (found.low, found.high)
            rows.append(
                {
                    "by": name,
                    "group": _label(edges, group),
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


def _groupings(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, Sequence[float]]]:
    """Number of each segment's word [N], NaN where unknown, and lower ends of the groups."""
    found: dict[str, tuple[np.ndarray, Sequence[float]]] = {}
    if "word" in table and table["word"].notna().any():
        letters = table["word"].astype(str).str.count(r"\w").where(table["word"].notna())
        found["letters"] = letters.to_numpy(float), LENGTHS
        frequencies = _frequencies(table)
        if frequencies is not None:
            found["Zipf frequency"] = frequencies, FREQUENCIES
    if "word_index" in table and table["word_index"].notna().any():
        found["place in the sentence"] = table["word_index"].to_numpy(float), POSITIONS
    return found


def _frequencies(table: pd.DataFrame) -> np.ndarray | None:
    """Zipf frequencies of the words; None where they can't be known, which is logged."""
    if "language" not in table:
        return None
    words = table[table["word"].notna() & table["language"].notna()].drop_duplicates("word")
    try:
        values = WordFrequency().values(words)[:, 0]
    except (ImportError, DataError, ValueError) as error:
        logger.info("No accuracy by word frequency: %s", error)
        return None
    of_word = pd.Series(values, index=words["word"].to_numpy())
    return table["word"].map(of_word).to_numpy(float)


def _label(edges: Sequence[float], group: int) -> str:
    low = edges[group]
    if group + 1 == len(edges):
        return f"{low:g} or more"
    high = edges[group + 1]
    whole = all(float(edge).is_integer() for edge in edges) and isinstance(low, int)
    if whole:
        return f"{low}" if high - low == 1 else f"{low} to {high - 1}"
    return f"below {high:g}" if group == 0 else f"{low:g} to {high:g}"
