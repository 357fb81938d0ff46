"""Retrieval from several trials at once: never to be mixed with the single-trial accuracy.

Enters: the scores of each segment, as `bm.evaluation.retrieve` finds them. Leaves: accuracies of
sums of log-probabilities, each named after what was summed.

Summing over listeners answers another question than the single-trial accuracy does: what can be
read from a hundred brains together. It is higher wherever there is anything to find.
"""

import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bm.evaluation.candidates import MAX_BYTES, Unique
from bm.evaluation.retrieval import KS, Retrieval
from bm.evaluation.statistics import hits, interval
from bm.metrics import chance, rank_of_truth
from bm.segments import SegmentDataset

logger = logging.getLogger(__name__)

SINGLE = "single trial"
EVERYONE = "segment, summed over subjects and repetitions"
REPETITIONS = "segment, summed over the repetitions of each subject"
SENTENCES = "sentence, summed over the segments of one presentation"
COLUMNS = (
    "what", "k", "accuracy", "low", "high", "over", "chance", "n_asked", "n_trials",
    "n_candidates",
)  # fmt: skip
NONE = -1


class Pool:
    """Sums up log-probabilities of segments while they are retrieved (``retrieve(watch=pool)``).

    - Segments of all subjects and repetitions that heard the same: which one was it?
    - Segments of one subject who heard the same more than once: which one was it?
    - Segments of one sentence, heard once by one subject: which sentence was it? The probability of
      a sentence is the sum over its candidates; the order of its words isn't looked at.

    Parameters
    ----------
    dataset : the split that is retrieved, with one process.
    """

    def __init__(self, dataset: SegmentDataset):
        table = dataset.table
        self._table = table
        self._identity = Unique.of(dataset).of_row  # [n] which unique segment each row is
        self._keys = {
            EVERYONE: self._identity,
            REPETITIONS: _repetitions(table["subject"].to_numpy(np.int64), self._identity),
            SENTENCES: _presentations(table),
        }
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, np.ndarray] = {}
        self._columns = np.empty(0, dtype=np.int64)
        self._sentences: dict[str, np.ndarray] = {}

    def __call__(self, scores: Tensor, row: Tensor, columns: np.ndarray) -> None:
        """Take in the scores [B, V] of the segments at `row` [B].

        Parameters
        ----------
        scores, row : of a batch.
        columns : [V] row, of the split's table, of the first occurrence of each candidate.
        """
        if not len(self._columns):
            self._open(columns)
        log_probability = scores.detach().float().cpu().log_softmax(dim=1)
        rows = row.cpu().numpy()
        for name, sums in self._sums.items():
            key = self._keys[name][rows]
            used = key != NONE
            values = log_probability[torch.from_numpy(used)]
            if name == SENTENCES:
                values = self._by_sentence(values)
            sums.index_add_(0, torch.from_numpy(key[used]), values)
            np.add.at(self._counts[name], key[used], 1)

    def table(self, retrieval: Retrieval) -> pd.DataFrame:
        """Accuracy of each kind of sum, the single trial first.

        Returns
        -------
        DataFrame with columns ``what``; ``k``, ``accuracy`` and ``chance``; ``low`` and ``high``,
        95 % ``over`` subjects, or over sentences where all subjects are summed (NaN for fewer than
        three); ``n_asked``, how many were looked for; ``n_trials``, segments summed for each, on
        average; ``n_candidates``. What there is nothing to sum for is missing.
        """
        ranks = retrieval.table["rank"].to_numpy(float)
        found = [*_rows(SINGLE, ranks, retrieval.table, "subject", 1.0, retrieval.n_candidates)]
        for name, sums in self._sums.items():
            asked = np.flatnonzero(self._counts[name])
            first = _first_rows(self._keys[name], len(sums))[asked]
            truth = torch.tensor(self._truth(name, first))
            ranks = rank_of_truth(sums[torch.from_numpy(asked)], truth).double().numpy()
            unit = "word_sequence" if name == EVERYONE else "subject"
            n_trials = float(self._counts[name][asked].mean()) if len(asked) else 0.0
            labels = self._table.iloc[first].reset_index(drop=True)
            found += _rows(name, ranks, labels, unit, n_trials, sums.shape[1])
        return pd.DataFrame(found, columns=list(COLUMNS))

    def _open(self, columns: np.ndarray) -> None:
        """Make room for the sums, now that the candidates are known."""
        self._columns = columns
        if "word_sequence" in self._table:
            texts = self._table["word_sequence"].iloc[columns].reset_index(drop=True)
            for text, own in texts[texts.notna()].groupby(texts, sort=False):
                self._sentences[str(text)] = own.index.to_numpy(np.int64)
        for name, keys in self._keys.items():
            n_keys = int(keys.max(initial=NONE)) + 1
            n_columns = len(self._sentences) if name == SENTENCES else len(columns)
            if 4 * n_keys * n_columns > MAX_BYTES:
                logger.warning("%s: too large to be kept, and left out.", name)
            elif n_keys and n_columns > 1:
                self._sums[name] = torch.zeros(n_keys, n_columns)
                self._counts[name] = np.zeros(n_keys, dtype=np.int64)

    def _by_sentence(self, log_probability: Tensor) -> Tensor:
        """[B, V] to [B, S]."""
        parts = [
            log_probability[:, torch.tensor(own)].logsumexp(dim=1)
            for own in self._sentences.values()
        ]
        return torch.stack(parts, dim=1)

    def _truth(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Column of what was heard at these rows of the split's table."""
        if name == SENTENCES:
            place = {text: index for index, text in enumerate(self._sentences)}
            return self._table["word_sequence"].iloc[rows].map(place).to_numpy(np.int64)
        column = np.empty(int(self._identity.max()) + 1, dtype=np.int64)
        column[self._identity[self._columns]] = np.arange(len(self._columns))
        return column[self._identity[rows]]


def _rows(
    what: str, ranks: np.ndarray, labels: pd.DataFrame, unit: str, n_trials: float, n: int
) -> Iterator[dict[str, object]]:
    """A line for each k that says something among `n` candidates."""
    for k in KS:
        if k >= n or not len(ranks):
            continue
        values = hits(ranks, k)
        found = None
        if unit in labels and labels[unit].notna().all():
            over = "sentences" if unit == "word_sequence" else "subjects"
            found = interval(values, labels[unit].to_numpy(), over)
        low, high, over = (np.nan, np.nan, "") if found is None else (
            found.low, found.high, found.over)  # fmt: skip
        yield dict(
            zip(COLUMNS, (what, k, values.mean(), low, high, over, chance(k, n), len(ranks),
                          n_trials, n), strict=True)
        )  # fmt: skip


def _repetitions(subject: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """[n] a number for each subject and segment heard more than once; `NONE` for the others."""
    _, key, counts = np.unique(
        np.stack([subject, identity]), axis=1, return_inverse=True, return_counts=True
    )
    key = key.reshape(-1)
    number = np.where(counts > 1, np.cumsum(counts > 1) - 1, NONE)
    return number[key]


def _presentations(table: pd.DataFrame) -> np.ndarray:
    """[n] a number for each sentence of a recording each time that it is heard; else `NONE`."""
    if "word_sequence" not in table or "word_index" not in table:
        return np.full(len(table), NONE)
    ordered = table.sort_values(["recording", "first"], kind="stable")
    sentence, index = ordered["word_sequence"], ordered["word_index"].to_numpy(float)
    begins = (sentence != sentence.shift()) | (ordered["recording"].diff() != 0)
    begins = begins.to_numpy() | np.concatenate([[True], index[1:] <= index[:-1]])
    number = np.cumsum(begins) - 1
    number[sentence.isna().to_numpy()] = NONE
    found = np.empty(len(table), dtype=np.int64)
    found[ordered.index.to_numpy()] = number
    return found


def _first_rows(keys: np.ndarray, n: int) -> np.ndarray:
    """[n] first row of each key."""
    first = np.zeros(n, dtype=np.int64)
    used = np.flatnonzero(keys != NONE)[::-1]
    first[keys[used]] = used
    return first
