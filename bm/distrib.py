"""Several processes that train one model: what they tell each other.

Each process (a *rank*) has the whole model and a share of every batch. Enters: what one rank knows.
Leaves: what all ranks know together. In a single process everything here changes nothing.

Gradients are added up over whatever the optimizer trains, after the backward pass: shares of
unequal size count as they should, and no parameter can be left out. Backends are gloo for tensors
on the CPU and NCCL for those on GPUs.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

logger = logging.getLogger(__name__)

SCOPES = ("rank", "all")
"""Over what negatives or statistics are taken: each rank's share of a batch, or the whole batch."""

PATIENCE = timedelta(hours=2)
"""Ranks wait so long for each other, as one may read more slowly; a lost one is noticed at once."""


def start() -> None:
    """Join the other processes; their number and addresses are in the environment."""
    with_gpus = torch.cuda.is_available() and distributed.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
    distributed.init_process_group(backend, init_method="env://", timeout=PATIENCE)
    logger.info("Process %d of %d (%s).", rank() + 1, world_size(), backend)


def stop() -> None:
    """Leave the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def explaining() -> Iterator[None]:
    """Within this context, the loss of another process is told as what it is.

    Raises
    ------
    ConnectionError : another process has ended, or doesn't answer.
    """
    try:
        yield
    except RuntimeError as error:
        is_lost = isinstance(error, distributed.DistError) or "gloo" in str(error)
        if not is_lost or world_size() == 1:
            raise
        raise ConnectionError(
            f"Process {rank() + 1} of {world_size()} ends because another one has ended, or hasn't "
            f"answered for {PATIENCE}: look for the reason in its own log. The same command goes "
            "on from the last epoch."
        ) from error


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def local_rank() -> int:
    """Number of this process among those on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that writes files."""
    return rank() == 0


def counts(n: int) -> list[int]:
    """What each rank has counted."""
    return [int(number) for number in _tell(torch.tensor([n]))]


def total(values: Sequence[float]) -> list[float]:
    """Sums over ranks, in double precision."""
    if world_size() == 1:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(summed)
    return summed.tolist()


def check_alike(digest: str, what: str) -> None:
    """Make sure that all ranks hold the same.

    Parameters
    ----------
    digest : hexadecimal hash of what they should share.
    what : what that is, for the message.

    Raises
    ------
    ValueError : they don't.
    """
    numbers = _tell(torch.tensor([int(digest[:15], 16)]))
    if (numbers != numbers[0]).any():
        raise ValueError(
            f"The {world_size()} processes disagree on {what}. Do all of them see the same files? "
            "A recording that only one can't read is told with dset.on_bad_recording=error."
        )


def share_batch(batch_size: int, negatives_scope: str) -> None:
    """Say how the processes share a batch.

    Raises
    ------
    ValueError : some would get nothing of it.
    """
    n_ranks = world_size()
    if batch_size < n_ranks:
        raise ValueError(f"optim.batch_size={batch_size} is too small for {n_ranks} processes.")
    n_candidates = batch_size if negatives_scope == "all" else batch_size // n_ranks
    logger.info(
        "Batches of %d are shared by %d processes: %d negatives per estimate "
        "(optim.negatives_scope=%s).", batch_size, n_ranks, n_candidates - 1, negatives_scope,
    )  # fmt: skip


class Mean:
    """Mean over segments, of all ranks together."""

    def __init__(self) -> None:
        self.total: float | Tensor = 0.0
        self.n_segments = 0

    def add(self, value: Tensor, n_segments: int) -> None:
        """Count the mean `value` of some segments of this rank; it stays on its device."""
        self.total = self.total + value.detach().double() * n_segments
        self.n_segments += n_segments

    @property
    def here(self) -> float:
        """Mean of this rank's segments so far; NaN without any."""
        return float(self.total) / self.n_segments if self.n_segments else float("nan")

    def everywhere(self) -> float | None:
        """Mean of all ranks' segments; None without any. All ranks must ask."""
        summed, n_segments = total([float(self.total), self.n_segments])
        return summed / n_segments if n_segments else None


def with_others(rows: Tensor) -> Tensor:
    """Rows [B, ...] of this rank, and those of the other ranks after them, with gradient."""
    if world_size() == 1:
        return rows
    parts = list(_GatherRows.apply(rows))
    own = parts.pop(rank())
    return torch.cat([own, *parts])


def gather_rows(rows: Tensor) -> Tensor:
    """Rows [B, ...] of all ranks one after the other, on the CPU; B may differ."""
    if world_size() == 1:
        return rows.cpu()
    return torch.cat(_gather(rows.detach().cpu()))


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all ranks; a missing one counts as zero."""
    if world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    for parameter, part in zip(
        trained, flat.split([len(p.view(-1)) for p in trained]), strict=True
    ):
        parameter.grad = part.view_as(parameter)


def average_statistics(models: nn.Module) -> None:
    """Give all ranks the mean of their batch norms' running statistics."""
    if world_size() == 1:
        return
    for module in models.modules():
        if isinstance(module, nn.BatchNorm1d) and module.track_running_stats:
            for statistic in (module.running_mean, module.running_var):
                assert statistic is not None
                distributed.all_reduce(statistic)
                statistic /= world_size()


class SyncBatchNorm1d(nn.BatchNorm1d):
    """Batch norm over the shares of all ranks, on the CPU too (torch's own needs GPUs)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, T] as a single process with the whole batch would."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        assert self.num_batches_tracked is not None  # torch allows a norm without statistics
        assert self.running_mean is not None
        assert self.running_var is not None
        n_here = torch.tensor([float(x.numel() // x.shape[1])], device=x.device)
        values = x.float()
        summed = _Sum.apply(torch.cat([values.sum(dim=(0, 2)), n_here]))
        n_all = summed[-1].detach()
        mean = summed[:-1] / n_all
        squares = _Sum.apply((values - mean[:, None]).square().sum(dim=(0, 2)))
        variance = squares / n_all
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = self.momentum
            if momentum is None:
                momentum = 1 / int(self.num_batches_tracked)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * n_all / (n_all - 1), momentum)
        scaled = (values - mean[:, None]) * (variance + self.eps).rsqrt()[:, None]
        if self.affine:
            scaled = scaled * self.weight[:, None] + self.bias[:, None]
        return scaled.to(x.dtype)


def synchronise_batch_norm(models: nn.Module) -> None:
    """Make every batch norm one over all ranks; names and values of the weights stay."""
    for parent in list(models.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm1d:
                new = SyncBatchNorm1d(
                    child.num_features, child.eps, child.momentum, child.affine,
                    child.track_running_stats,
                )  # fmt: skip
                new.load_state_dict(child.state_dict())
                setattr(parent, name, new)


class _Sum(torch.autograd.Function):
    """Sum over ranks; each rank's part of the loss sends its gradient to all."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        summed = values.clone()
        distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        distributed.all_reduce(summed)
        return summed


class _GatherRows(torch.autograd.Function):
    """Rows of each rank; each rank's part of the loss sends its gradient to who owns the rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(_gather(rows))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = torch.cat(gradients)
        distributed.all_reduce(summed)
        return summed.split([len(part) for part in gradients])[rank()]


def _gather(rows: Tensor) -> list[Tensor]:
    """Rows of each rank, padded on the way to the same number."""
    sizes = counts(len(rows))
    longest = max(sizes)
    padded = functional.pad(rows, [0, 0] * (rows.dim() - 1) + [0, longest - len(rows)])
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded.contiguous())
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def _tell(number: Tensor) -> Tensor:
    """[W] the number of each rank."""
    if world_size() == 1:
        return number
    numbers = [torch.empty_like(number) for _ in range(world_size())]
    distributed.all_gather(numbers, number)
    return torch.cat(numbers)
