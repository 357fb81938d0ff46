"""What is minimised: a loss, the candidates it gets, and which of them hold the same sound.

Enters: estimates and targets of a batch. Leaves: a loss.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bm import distrib
from bm.evaluation.candidates import FeaturesOf
from bm.losses import ClipLoss, Similarity
from bm.segments import SegmentDataset
from bm.segments.splits import identify
from bm.training import Training


class Objective:
    """Holds estimates against their own targets, those of other ranks, and further negatives.

    Parameters
    ----------
    loss : of estimates and candidates.
    datasets : the splits.
    target : targets of an unscaled batch.
    training : whose negatives count.
    """

    def __init__(
        self,
        loss: nn.Module,
        datasets: Mapping[str, SegmentDataset],
        target: FeaturesOf,
        training: Training,
    ):
        self.loss = loss
        self.datasets = datasets
        self.target = target
        self.is_shared = training.negatives_scope == "all"
        self.negatives = Negatives(
            datasets["train"], training.negatives, training.negative_pool_size, training.seed
        )
        self._contents: dict[str, Tensor] = {}

    @property
    def similarity(self) -> Similarity:
        """Scores of estimates and targets in retrieval: those of the loss, if it has any."""
        return self.loss.similarity if isinstance(self.loss, ClipLoss) else Similarity()

    def begin(self, epoch: int) -> None:
        """Get ready for an epoch of training."""
        self.negatives.begin(epoch)

    def __call__(
        self, estimates: Tensor, targets: Tensor, row: Tensor, mask: Tensor | None, split: str
    ) -> Tensor:
        """Loss of the segments of these rows of a split's table; all ranks must ask.

        Parameters
        ----------
        estimates, targets : [B, F, T].
        row : [B].
        mask : [B, 1, T], 1 where the loss counts; None: everywhere.
        split : further negatives belong to "train" alone.
        """
        candidates = distrib.with_others(targets) if self.is_shared else targets
        alike = {}
        n_more = self.negatives.n if split == "train" else 0
        if n_more or (isinstance(self.loss, ClipLoss) and self.loss.duplicates != "keep"):
            content = self._content(split)
            own = content[row.cpu()]
            of_candidates = distrib.with_others(own) if self.is_shared else own
            if n_more:
                drawn = self.negatives.draw(content, of_candidates)
                negatives = self.target(self.datasets[split].gather(drawn))
                candidates = torch.cat([candidates, negatives.values])
                of_candidates = torch.cat([of_candidates, content[negatives.row.cpu()]])
            alike["alike"] = (own[:, None] == of_candidates).to(estimates.device)
        if not len(estimates):
            return estimates.sum()
        loss: Tensor = self.loss(estimates, candidates, mask, **alike)
        return loss

    def _content(self, split: str) -> Tensor:
        """[n] what each segment of a split holds, as a number."""
        if split not in self._contents:
            self._contents[split] = contents(self.datasets[split])
        return self._contents[split]


class Negatives:
    """Random training segments that estimates are held against, beside those of the batch.

    Parameters
    ----------
    dataset : the training split.
    n : how many for each batch; None: none.
    pool_size : they are drawn from so many segments, chosen anew for each epoch; None: from all.
    seed : of the draws.
    """

    def __init__(
        self, dataset: SegmentDataset, n: int | None, pool_size: int | None, seed: int
    ) -> None:
        for key, value in (("optim.negatives", n), ("optim.negative_pool_size", pool_size)):
            if value is not None and value < 1:
                raise ValueError(f"{key}={value} must be at least 1, or null.")
        if pool_size is not None and (n is None or pool_size < n):
            raise ValueError(
                f"optim.negative_pool_size={pool_size} is where optim.negatives={n} are drawn from."
            )
        self.n = n or 0
        self._size = len(dataset)
        self._pool_size = pool_size or self._size
        self._seed = seed
        self._pool = torch.arange(self._size)
        self._generator = torch.Generator()

    def begin(self, epoch: int) -> None:
        """Choose the pool of an epoch; the same number always gives the same draws."""
        self._generator.manual_seed(self._seed * 100_003 + epoch)
        self._pool = torch.randperm(self._size, generator=self._generator)[: self._pool_size]

    def draw(self, content: Tensor, avoid: Tensor) -> Tensor:
        """[n] rows of segments that hold nothing of the batch; fewer if the pool has no more.

        Parameters
        ----------
        content : what each segment of the split holds (`contents`).
        avoid : what the batch holds.
        """
        rows = self._pool[~torch.isin(content[self._pool], avoid)]
        return rows[torch.randperm(len(rows), generator=self._generator)[: self.n]]


def contents(dataset: SegmentDataset) -> Tensor:
    """[n] numbers that are equal for segments that hold the same moment of the same sound."""
    return torch.from_numpy(identify(dataset.table))
