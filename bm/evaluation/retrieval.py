"""Retrieval: find the segment that was heard among all unique segments of the test set.

The same function serves training and the evaluation script. Candidates are computed first, then
estimates are streamed batch by batch: no more than one batch of scores is ever held. Several
processes divide the queries; the candidates are the same for all.

Reference: Défossez et al. 2023, doi:10.1038/s42256-023-00714-5.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bm import distrib
from bm.core.messages import DataError
from bm.evaluation.candidates import MAX_BYTES, SCORED_AT_ONCE, Candidates, FeaturesOf, Unique
from bm.evaluation.statistics import hits, interval
from bm.evaluation.words import word_ids
from bm.losses import Similarity
from bm.metrics import chance, rank_of_truth, top_k_accuracy
from bm.segments import SegmentBatch, SegmentDataset

logger = logging.getLogger(__name__)

KS = (1, 5, 10)
N_BEST = max(KS)
OUTCOME = ("row", "candidate", "rank", "probability", "word_rank")
Watch = Callable[[Tensor, Tensor, np.ndarray], None]
"""Told the scores [B, V] of each batch, its rows [B], and the rows [V] of the candidates."""


@dataclass(frozen=True)
class Retrieval:
    """Outcome for each segment of a split.

    Attributes
    ----------
    table : one row per segment: its labels, ``row`` (of the split's table), ``candidate`` (column
        of the truth), ``rank`` (0 is best), ``probability`` of the truth, ``word_rank`` of its
        word (NaN without one), and ``best`` and ``best_probability``, columns and probabilities of
        the best candidates.
    candidates : one row per candidate: labels of its first occurrence.
    """

    table: pd.DataFrame
    candidates: pd.DataFrame

    @property
    def n_candidates(self) -> int:
        """V, number of unique segments."""
        return len(self.candidates)

    @property
    def ks(self) -> list[int]:
        """Those of top 1, 5 and 10 that say something with so many candidates."""
        return [k for k in KS if k < self.n_candidates]

    def accuracy(self, k: int) -> float:
        """Top-k accuracy over all segments."""
        return top_k_accuracy(torch.tensor(self.table["rank"].to_numpy()), k, self.n_candidates)

    def by_subject(self, k: int) -> dict[int, float]:
        """Top-k accuracy of each subject, by the subject's index."""
        return {
            int(str(subject)): top_k_accuracy(torch.tensor(ranks.to_numpy()), k, self.n_candidates)
            for subject, ranks in self.table.groupby("subject")["rank"]
        }

    def n_by_subject(self) -> dict[int, int]:
        """Number of segments of each subject, by the subject's index."""
        return {
            int(str(index)): int(n) for index, n in self.table.groupby("subject").size().items()
        }

    @property
    def n_words(self) -> int:
        """Number of different words at the anchors of candidates, whatever their case."""
        if "word" not in self.candidates:
            return 0
        return int(self.candidates["word"].dropna().astype(str).str.lower().nunique())

    def word_accuracy(self, k: int) -> float:
        """Share of segments whose word is among the `k` most probable ones.

        The probability of a word is that of all candidates anchored at it, summed: the word-level
        accuracy of the paper, which has nothing to do with the word monitor in training.
        """
        ranks = self.table["word_rank"].dropna()
        return top_k_accuracy(torch.tensor(ranks.to_numpy()), k, self.n_words)

    def standard_error(self, k: int) -> float:
        """Standard error of the mean top-k accuracy over subjects; NaN for a single subject."""
        of_subject = np.array(list(self.by_subject(k).values()))
        if len(of_subject) < 2:
            return float("nan")
        return float(of_subject.std(ddof=1) / np.sqrt(len(of_subject)))

    def sampling_error(self, k: int) -> float:
        """Standard error of the top-k accuracy over segments, as if they were independent."""
        accuracy = self.accuracy(k)
        return float(np.sqrt(accuracy * (1 - accuracy) / len(self.table)))

    def interval(self, k: int, seed: int = 0) -> tuple[float, float] | None:
        """95 % interval of the top-k accuracy over subjects (BCa); None below three."""
        found = interval(hits(self.table["rank"], k), self.table["subject"].to_numpy(), seed=seed)
        return None if found is None else (found.low, found.high)

    def metrics(self) -> dict[str, float]:
        """Top-k accuracies and their chance levels, by the names used in histories."""
        return {
            **{f"segment_top{k}": self.accuracy(k) for k in self.ks},
            **{f"chance_top{k}": chance(k, self.n_candidates) for k in self.ks},
            "n_candidates": self.n_candidates,
        }


@torch.no_grad()
def retrieve(
    dataset: SegmentDataset,
    batches: Iterable[SegmentBatch],
    estimate: FeaturesOf,
    target: FeaturesOf,
    batch_size: int = SCORED_AT_ONCE,
    max_bytes: int = MAX_BYTES,
    similarity: Similarity | None = None,
    watch: Watch | None = None,
    dtype: torch.dtype = torch.float32,
) -> Retrieval:
    """Rank the true segment of every query among the unique segments of its split.

    Parameters
    ----------
    dataset : the split; its candidates are the first occurrence of each unique segment.
    batches : queries; nobody but `estimate` looks at them.
    estimate : estimates of a batch.
    target : targets of a batch.
    batch_size : queries scored at once.
    max_bytes : all targets are kept in memory up to this size, else gathered anew for each batch.
    similarity : scores of estimates and targets; as published if not given.
    watch : sees all scores that this process finds, such as a `bm.evaluation.pooling.Pool`.
    dtype : of estimates and targets when they are multiplied.

    Raises
    ------
    DataError : the split has no segments, or all were rejected.
    """
    if not len(dataset):
        raise DataError("The split has no segments, so nothing can be retrieved from it.")
    unique = Unique.of(dataset)
    candidates = Candidates(dataset, unique.first, target, batch_size, max_bytes, similarity, dtype)
    column = np.full(len(unique.first), -1)
    column[candidates.kept] = np.arange(len(candidates))
    truth = torch.from_numpy(column[unique.of_row])
    words = torch.from_numpy(word_ids(dataset)[unique.first[candidates.kept]])
    found = [torch.empty(0, len(OUTCOME) + 2 * min(N_BEST, len(candidates)), dtype=torch.float64)]
    for scores, scored in candidates.scores(batches, estimate):
        row = scored.cpu()
        known = truth[row] >= 0
        if known.any():
            of_known = scores[known.to(scores.device)]
            if watch is not None:
                watch(of_known, row[known], unique.first[candidates.kept])
            found.append(_outcome(of_known, truth[row][known], row[known], words))
    table = _to_table(distrib.gather_rows(torch.cat(found)))
    if not len(table):
        raise DataError(
            "All segments were rejected: nothing can be retrieved. Is norm.max_scale too low?"
        )
    if len(table) < len(dataset):
        logger.warning(
            "%d of %d segments and %d of %d candidates were rejected, and don't count.",
            len(dataset) - len(table), len(dataset), (~candidates.kept).sum(), len(unique.first),
        )  # fmt: skip
    labels = dataset.table.iloc[table["row"]].reset_index(drop=True)
    return Retrieval(
        pd.concat([labels, table], axis=1),
        dataset.table.iloc[unique.first[candidates.kept]].reset_index(drop=True),
    )


def _outcome(scores: Tensor, truth: Tensor, row: Tensor, words: Tensor) -> Tensor:
    """[B, 5 + 2 K] the columns of `OUTCOME`, then the best K candidates and their probabilities."""
    truth = truth.to(scores.device)
    probability = scores.softmax(dim=1)
    best = probability.topk(min(N_BEST, scores.shape[1]), dim=1)
    columns = [
        row[:, None],
        truth[:, None],
        rank_of_truth(scores, truth)[:, None],
        probability.gather(1, truth[:, None]),
        _word_rank(probability, truth, words.to(scores.device))[:, None],
        best.indices,
        best.values,
    ]
    return torch.cat([column.cpu().double() for column in columns], dim=1)


def _word_rank(probability: Tensor, truth: Tensor, words: Tensor) -> Tensor:
    """[B] number of words more probable than the true one; NaN where none is heard."""
    n_words = int(words.max()) + 1
    if n_words < 1:
        return torch.full_like(truth, torch.nan, dtype=torch.float64)
    per_word = probability.new_zeros(len(probability), n_words + 1)
    per_word.index_add_(1, torch.where(words < 0, n_words, words), probability)
    present = torch.unique(words[words >= 0])
    place = torch.searchsorted(present, words[truth]).clamp(max=len(present) - 1)
    rank = rank_of_truth(per_word[:, present], place).double()
    return torch.where(words[truth] < 0, torch.nan, rank)


def _to_table(found: Tensor) -> pd.DataFrame:
    """Outcomes [n, 5 + 2 K] as a table, in the order of the split's."""
    values = found[found[:, 0].argsort()].numpy()
    table = pd.DataFrame(values[:, : len(OUTCOME)], columns=list(OUTCOME))
    best, probability = np.split(values[:, len(OUTCOME) :], 2, axis=1)
    return table.astype({"row": np.int64, "candidate": np.int64}).assign(
        best=best.astype(np.int64).tolist(), best_probability=probability.tolist()
    )
