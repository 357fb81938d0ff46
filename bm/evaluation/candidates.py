"""The targets that estimates are held against: unique segments, in chunks of bounded memory.

Enters: rows of a split's table, batches of segments. Leaves: scores of the estimates of these
batches against the targets of these rows.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bm.losses import Similarity
from bm.segments import SegmentBatch, SegmentDataset
from bm.segments.splits import identify

logger = logging.getLogger(__name__)

MAX_BYTES = 4 << 30
SCORED_AT_ONCE = 480
"""Estimates in one product: more would make it a little faster, and take memory."""
GATHERED_AT_ONCE = 32
"""Segments with their features, of which several copies are made on the way."""

Part = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class SegmentFeatures:
    """Features of the segments of a batch: told from the brain signal, or of the sound heard.

    Attributes
    ----------
    values : [B, F, T].
    row : [B], row of the split's table; segments that were rejected are missing.
    """

    values: Tensor
    row: Tensor


FeaturesOf = Callable[[SegmentBatch], SegmentFeatures]
"""Estimates of a batch, or its targets."""


@dataclass(frozen=True)
class Unique:
    """The unique segments of a split.

    Attributes
    ----------
    first : [V] row of the first occurrence of each, in this order.
    of_row : [n] which of them each row of the split's table is.
    """

    first: np.ndarray
    of_row: np.ndarray

    @classmethod
    def of(cls, dataset: SegmentDataset) -> "Unique":
        """Find them: segments anchored at the same word of the same sentence are one."""
        _, first, of_row = np.unique(
            identify(dataset.table), return_index=True, return_inverse=True
        )
        order = np.argsort(first, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return cls(first[order], place[of_row.reshape(-1)])


class Candidates:
    """Targets of some segments, kept if they fit in memory, else gathered again whenever needed.

    Parameters
    ----------
    dataset : the split.
    rows : [V] rows of its table.
    target : targets of a batch.
    chunk_size : targets gathered, and estimates scored, at once.
    max_bytes : targets are kept if all of them together are not larger.
    similarity : scores of estimates and targets; that of the loss that was trained with.
    dtype : in which targets are kept and multiplied; scores are in single precision.

    Attributes
    ----------
    kept : [V] bool, which rows are left; those the scaler rejects are missing from the scores.
    """

    def __init__(
        self,
        dataset: SegmentDataset,
        rows: np.ndarray,
        target: FeaturesOf,
        chunk_size: int = SCORED_AT_ONCE,
        max_bytes: int = MAX_BYTES,
        similarity: Similarity | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.dataset = dataset
        self.target = target
        self.similarity = similarity or Similarity()
        self.chunk_size = chunk_size
        self.dtype = dtype
        n_gathered = min(chunk_size, GATHERED_AT_ONCE)
        self._parts = torch.from_numpy(rows.astype(np.int64)).split(n_gathered)
        self._stored: Part | None = None
        self.kept = np.isin(rows, self._store(len(rows), max_bytes))
        if self._stored is None:
            logger.info("%d targets are too many to keep: gathered for each batch anew.", len(rows))

    def __len__(self) -> int:
        return int(self.kept.sum())

    def scores(
        self, batches: Iterable[SegmentBatch], estimate: FeaturesOf
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield scores [B, V] of estimates and targets, and the rows [B] that they are of.

        The model may see small batches, and products of matrices take large ones: estimates wait
        until there are `chunk_size` of them, and no more are ever held.
        """
        waiting, row_of, n = torch.empty(0, 0), torch.empty(0, dtype=torch.int64), 0
        for batch in batches:
            estimates = estimate(batch)
            embedded = self.similarity.embed_estimates(estimates.values)
            if not len(embedded):
                continue
            if n and n + len(embedded) > len(waiting):
                yield self._compare(waiting[:n]), row_of[:n].clone()
                n = 0
            if len(embedded) > len(waiting):
                size = max(self.chunk_size, len(embedded))
                waiting = embedded.new_empty(size, embedded.shape[1], dtype=self.dtype)
                row_of = estimates.row.new_empty(size)
            waiting[n : n + len(embedded)] = embedded
            row_of[n : n + len(embedded)] = estimates.row
            n += len(embedded)
            del estimates, embedded  # while the model is asked about the next
        if n:
            yield self._compare(waiting[:n]), row_of[:n].clone()

    def _compare(self, embedded: Tensor) -> Tensor:
        stored = [self._stored] if self._stored is not None else self._gather()
        parts = [self.similarity.compare(embedded, flat, norms) for flat, norms, _ in stored]
        return torch.cat(parts, dim=1).float()

    def _store(self, n_rows: int, max_bytes: int) -> np.ndarray:
        """Keep all targets in one array, if it isn't too large; returns the rows that are left."""
        found: list[np.ndarray] = []
        whole: list[Tensor] = []
        for part in self._gather():
            n_found = sum(len(one) for one in found)
            if not found and part[0].element_size() * part[0].shape[1] * n_rows <= max_bytes:
                whole = [one.new_empty(n_rows, *one.shape[1:]) for one in part]
            for one, values in zip(whole, part, strict=False):
                one[n_found : n_found + len(values)] = values
            found.append(part[2].cpu().numpy())
        if whole:
            flat, norms, row = (one[: n_found + len(part[2])] for one in whole)
            self._stored = flat, norms, row
        return np.concatenate(found)

    def _gather(self) -> Iterator[Part]:
        """Flattened targets of each chunk, their norms, and their rows."""
        for part in self._parts:
            targets = self.target(self.dataset.gather(part))
            flat, norms = self.similarity.embed_candidates(targets.values)
            yield flat.to(self.dtype), norms, targets.row
