"""The targets that estimates are held against: unique segments, in chunks of bounded memory.

Enters: rows of a split's table. Leaves: scores of estimates against the targets of these rows.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bm.losses import Similarity
from bm.segments import SegmentBatch, SegmentDataset
from bm.segments.splits import identify

logger = logging.getLogger(__name__)

MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class Prediction:
    """What a model says of a batch.

    Attributes
    ----------
    estimate, target : [B, F, T], features told from the brain signal, and those of the sound heard.
    row : [B], row of the split's table; segments that were rejected are missing.
    """

    estimate: Tensor
    target: Tensor
    row: Tensor


Predict = Callable[[SegmentBatch], Prediction]


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
    target : target of a batch; its `estimate` is not looked at.
    chunk_size : segments gathered and scored at once.
    max_bytes : targets are kept if all of them together are not larger.
    similarity : scores of estimates and targets; that of the loss that was trained with.

    Attributes
    ----------
    kept : [V] bool, which rows are left; those the scaler rejects are missing from the scores.
    """

    def __init__(
        self,
        dataset: SegmentDataset,
        rows: np.ndarray,
        target: Predict,
        chunk_size: int = 256,
        max_bytes: int = MAX_BYTES,
        similarity: Similarity | None = None,
    ):
        self.dataset = dataset
        self.target = target
        self.similarity = similarity or Similarity()
        self._parts = torch.from_numpy(rows.astype(np.int64)).split(chunk_size)
        self._stored: list[tuple[Tensor, Tensor, Tensor]] = []
        found = []
        for flat, norm, row in self._gather():
            found.append(row.cpu().numpy())
            if flat.element_size() * flat.shape[1] * len(rows) <= max_bytes:
                self._stored.append((flat, norm, row))
        self.kept = np.isin(rows, np.concatenate(found))
        if not self._stored:
            logger.info("%d targets are too many to keep: gathered for each batch anew.", len(rows))

    def __len__(self) -> int:
        return int(self.kept.sum())

    def scores(self, estimates: Tensor) -> Tensor:
        """[B, V] how alike estimates [B, F, T] and targets are."""
        embedded = self.similarity.embed_estimates(estimates)
        parts = [
            self.similarity.compare(embedded, flat, norm)
            for flat, norm, _ in self._stored or self._gather()
        ]
        return torch.cat(parts, dim=1).float()

    def _gather(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Flattened targets of each chunk, their norms, and their rows."""
        for part in self._parts:
            prediction = self.target(self.dataset.gather(part))
            yield *self.similarity.embed_candidates(prediction.target), prediction.row
