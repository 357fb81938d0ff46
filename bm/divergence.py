"""Losses that are no number: training stops and keeps the batch, or leaves it out and counts it.

Enters: the loss of each batch. Leaves: a `FloatingPointError` and a file to look into, or the
number of batches that were left out.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bm import distrib
from bm.core.cache import write_atomically
from bm.scaling import BatchScaler
from bm.segments import SegmentGatherer
from bm.training import diverged

logger = logging.getLogger(__name__)

BAD_BATCH = "bad_batch.th"
"""Name of the file, in an experiment's folder, that holds the batch of the first such loss."""


class LossWatch:
    """Watches the losses of one epoch of training.

    With "error", training stops where the loss isn't finite. Looking at each loss would make the
    host wait for a GPU, so several are looked at together. With "skip", a batch whose loss or
    gradient isn't finite leaves weights and running statistics as they were before it.

    Parameters
    ----------
    policy : "error" or "skip".
    models : that are trained.
    dataset, scaler : where the batch comes from, to keep it.
    epoch : its number, from 0.
    every : with "error", look at the losses of so many batches at a time.
    folder : where the batch is kept; None: it isn't.
    """

    def __init__(
        self,
        policy: str,
        models: nn.Module,
        dataset: SegmentGatherer,
        scaler: BatchScaler,
        epoch: int,
        every: int,
        folder: Path | None,
    ):
        self.is_skipping = policy == "skip"
        self.models, self.dataset, self.scaler = models, dataset, scaler
        self.epoch, self.every, self.folder = epoch, every, folder
        self.n_empty = self.n_skipped = self.n_used = 0
        self._losses: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._statistics: list[Tensor] = []

    def has_all(self, of_ranks: Sequence[int]) -> bool:
        """Whether each rank has segments of a batch: all must take the same steps."""
        self.n_empty += not all(of_ranks)
        if self.is_skipping:
            self._statistics = [buffer.clone() for buffer in self.models.buffers()]
        return all(of_ranks)

    def accepts(self, loss: Tensor, row: Tensor, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether to take the step of a batch; all ranks ask, and get the same answer.

        Parameters
        ----------
        loss : of the batch.
        row : [B] of the training table.
        parameters : with the gradients of all ranks.

        Raises
        ------
        FloatingPointError : the loss of this batch, or of one before, isn't finite.
        """
        if not self.is_skipping:
            self._losses.append(loss)
            self._rows.append(row)
            if len(self._losses) >= self.every:
                self._check()
            return True
        gradients = [one.grad for one in parameters if one.grad is not None]
        is_finite = bool(loss.isfinite() and nn.utils.get_total_norm(gradients).isfinite())
        if all(distrib.counts(int(is_finite))):
            self.n_used += 1
            return True
        self.n_skipped += 1
        for buffer, before in zip(self.models.buffers(), self._statistics, strict=True):
            buffer.copy_(before)
        logger.debug("Epoch %d: loss %s, rows %s left out.", self.epoch + 1, loss, row.tolist())
        return False

    def counted(self) -> dict[str, float]:
        """At the end: the number of batches that were left out, if they are to be.

        Raises
        ------
        FloatingPointError : a loss isn't finite, or not a single batch could be used.
        """
        self._check()
        if self.n_empty:
            logger.warning("%d batches were skipped: too few segments were left.", self.n_empty)
        if not self.is_skipping:
            return {}
        if self.n_skipped:
            logger.warning(
                "%d batches were left out, as their loss or gradient isn't finite "
                "(optim.on_bad_loss=skip); %d were used.", self.n_skipped, self.n_used,
            )  # fmt: skip
            if not self.n_used:
                raise diverged(float("nan"), f"all of training (epoch {self.epoch + 1})")
        return {"n_left_out": float(self.n_skipped)}

    def _check(self) -> None:
        """Look at the losses since the last time."""
        if not self._losses:
            return
        losses = torch.stack(self._losses)
        if not losses.isfinite().all():
            first = int((~losses.isfinite()).nonzero()[0])
            kept = self._keep(self._rows[first], float(losses[first]))
            raise diverged(float(losses[first]), f"training (epoch {self.epoch + 1})", kept)
        self._losses, self._rows = [], []

    def _keep(self, row: Tensor, loss: float) -> str:
        """Write the batch as the model saw it; says where."""
        if self.folder is None:
            return ""
        number = f"-{distrib.rank()}" if distrib.world_size() > 1 else ""
        path = self.folder / BAD_BATCH.replace(".th", f"{number}.th")
        batch = self.scaler(self.dataset.gather(row.cpu())).to("cpu")
        state = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
        state |= {"epoch": self.epoch, "loss": loss}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda part: torch.save(state, part))
        return f"The scaled batch is kept in {path} (torch.load). "
