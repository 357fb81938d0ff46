"""Word accuracy: a quick look during training. Not the segment accuracy of the paper.

Here an estimate counts as right if one of the best ten candidates has the right *word* at its
onset, whatever the sentence; candidates are random segments of the test set, in which frequent
words abound. Published configurations call it "wer", though it is an accuracy.

Differences from the published monitor: labels come from the event that anchors a segment, not from
whatever word covers one sample; the true segment is among the candidates once; ids are the same in
every process.
"""

import logging
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bm import distrib
from bm.evaluation.candidates import MAX_BYTES, SCORED_AT_ONCE, Candidates, FeaturesOf, Unique
from bm.losses import Similarity
from bm.metrics import chance_of_match
from bm.segments import SegmentBatch, SegmentDataset

logger = logging.getLogger(__name__)

NO_WORD = -1


@torch.no_grad()
def word_accuracy(
    dataset: SegmentDataset,
    batches: Iterable[SegmentBatch],
    estimate: FeaturesOf,
    target: FeaturesOf,
    top_x: int = 10,
    n_negatives: int = 10_000,
    n_recordings: int = 40,
    seed: int = 0,
    recordings: Collection[int] | None = None,
    batch_size: int = SCORED_AT_ONCE,
    max_bytes: int = MAX_BYTES,
    similarity: Similarity | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Share of segments whose word is among those of the best `top_x` candidates.

    Candidates are up to `n_negatives` random segments, and the true one. Copies of a segment (other
    listeners, other sessions) take up places of their own, as published, but are scored once: the
    first occurrence stands for all.

    Parameters
    ----------
    dataset : the split.
    batches : its segments; those that aren't asked for are skipped.
    estimate, target : as in `bm.evaluation.retrieve`.
    top_x : candidates looked at.
    n_negatives : random segments.
    n_recordings : only segments of the first so many recordings are asked for.
    seed : of the random segments.
    recordings : indices of the recordings that take part; None: all.
    batch_size, max_bytes, similarity, dtype : as in `bm.evaluation.retrieve`.

    Returns
    -------
    ``wer``: the accuracy; ``wer_chance``: that of `top_x` candidates picked at random. Empty if no
    segment has a word.
    """
    words = word_ids(dataset)
    recording = dataset.table["recording"].to_numpy(np.int64)
    taking_part = np.unique(recording) if recordings is None else np.array(sorted(recordings))
    asked = np.isin(recording, taking_part[:n_recordings]) & (words != NO_WORD)
    if not asked.any():
        logger.warning("No word accuracy: none of the segments has a word.")
        return {}
    rows = np.flatnonzero(np.isin(recording, taking_part))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    negatives = rows[order[:n_negatives].numpy()]

    unique = Unique.of(dataset)
    used = np.unique(np.concatenate([unique.of_row[negatives], unique.of_row[asked]]))
    candidates = Candidates(
        dataset, unique.first[used], target, batch_size, max_bytes, similarity, dtype
    )
    pool = _Pool.of(unique, used[candidates.kept], negatives, words)
    n_hits, chances = 0, []
    queries = _only(batches, torch.from_numpy(asked & (pool.truth >= 0)))
    for scores, scored in candidates.scores(queries, estimate):
        row = scored.cpu().numpy()
        ranks = pool.rank_of_best(scores.cpu(), row)
        n_hits += int((ranks <= top_x - 1).sum())
        chances += [pool.chance(index, top_x) for index in row.tolist()]
    hits, chance, n = distrib.total([n_hits, math.fsum(chances), len(chances)])
    if not n:
        logger.warning("No word accuracy: all segments were rejected.")
        return {}
    return {"wer": hits / n, "wer_chance": chance / n}


@dataclass(frozen=True)
class _Pool:
    """What the V candidates are.

    Attributes
    ----------
    words : [n] word of each row of the split's table.
    truth : [n] candidate that each row is a copy of; -1: none.
    pool_words : [V] word of each candidate.
    copies : [V] how often each is among the random segments.
    """

    words: np.ndarray
    truth: np.ndarray
    pool_words: np.ndarray
    copies: np.ndarray

    @classmethod
    def of(
        cls, unique: Unique, used: np.ndarray, negatives: np.ndarray, words: np.ndarray
    ) -> "_Pool":
        column = np.full(len(unique.first), -1)
        column[used] = np.arange(len(used))
        copies = np.bincount(unique.of_row[negatives], minlength=len(unique.first))[used]
        return cls(words, column[unique.of_row], words[unique.first[used]], copies)

    def rank_of_best(self, scores: Tensor, row: np.ndarray) -> Tensor:
        """Number of candidates [B] above the best one with the right word, ties counted half.

        Parameters
        ----------
        scores : [B, V].
        row : [B].
        """
        matches = torch.from_numpy(self.pool_words[None] == self.words[row][:, None])  # [B, V]
        is_own = torch.zeros_like(matches).scatter_(
            1, torch.from_numpy(self.truth[row])[:, None], True
        )
        copies = torch.from_numpy(self.copies)
        eligible = is_own | (matches & (copies > 0))
        best = scores.masked_fill(~eligible, -torch.inf).amax(dim=1, keepdim=True)
        others = torch.where(matches | is_own, 0, copies).to(scores.dtype)
        below = (others * (scores < best)).sum(dim=1)
        tied = (others * (scores == best)).sum(dim=1)
        return others.sum(dim=1) - below - 0.5 * tied  # NaN can't be compared: counts as above

    def chance(self, row: int, top_x: int) -> float:
        """Accuracy of `top_x` random candidates; the true segment is among the candidates once."""
        word, own = self.words[row], self.truth[row]
        n_own = int(self.copies[own])
        n_all = int(self.copies.sum()) - n_own + 1
        of_word = self.pool_words == word
        of_word[own] = False
        return chance_of_match(top_x, n_all, int(self.copies[of_word].sum()) + 1)


def word_ids(dataset: SegmentDataset) -> np.ndarray:
    """[n] a number per distinct word, whatever its case; `NO_WORD` where there is none."""
    if "word" not in dataset.table:
        return np.full(len(dataset), NO_WORD)
    labels = dataset.table["word"]
    texts = labels.fillna("").astype(str).str.lower().to_numpy(str)
    _, ids = np.unique(texts, return_inverse=True)
    return np.where(labels.notna(), ids.reshape(-1), NO_WORD)


def _only(batches: Iterable[SegmentBatch], asked: Tensor) -> Iterable[SegmentBatch]:
    """The asked segments of each batch, until all of them have come."""
    n_left = int(asked.sum())
    for batch in batches:
        wanted = asked[batch.row.cpu()]
        if wanted.any():
            n_left -= int(wanted.sum())
            yield batch.select(wanted.to(batch.row.device))
        if n_left <= 0:
            return
