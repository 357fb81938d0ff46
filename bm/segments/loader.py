"""Batches of a split, in an order that depends on a seed and the epoch alone."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from bm.segments.batch import SegmentBatch
from bm.segments.gather import SegmentGatherer

Item = TypeVar("Item")


class SegmentLoader:
    """Iterate over a split in batches.

    Parameters
    ----------
    dataset : segments.
    batch_size : segments per batch; the last one may be smaller.
    device : where batches go.
    seed : order of the segments.
    max_batches : stop after so many; None: all.
    n_workers : batches prepared ahead, each by a thread.
    rank, n_ranks : this process, of so many that share the segments. Each gets a part of every
        shuffled batch, and so does the same number of steps; in order, each gets whole batches, the
        same as a single process would.
    """

    def __init__(
        self,
        dataset: SegmentGatherer,
        batch_size: int,
        device: str = "cpu",
        seed: int = 0,
        max_batches: int | None = None,
        n_workers: int = 0,
        rank: int = 0,
        n_ranks: int = 1,
    ):
        if batch_size < 1:
            raise ValueError(f"optim.batch_size={batch_size} must be at least 1.")
        if max_batches is not None and max_batches < 1:
            raise ValueError(
                f"optim.max_batches={max_batches} must be at least 1, or null for all."
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.device = device
        self.seed = seed
        self.max_batches = max_batches
        self.n_workers = n_workers
        self.rank = rank
        self.n_ranks = n_ranks

    def __len__(self) -> int:
        n_batches = -(-len(self.dataset) // self.batch_size)
        return n_batches if self.max_batches is None else min(n_batches, self.max_batches)

    def epoch(self, number: int) -> Iterator[SegmentBatch]:
        """Batches of one epoch, shuffled; the same number always gives the same order."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        order = torch.randperm(len(self.dataset), generator=generator)
        batches = self._divide(order.to(self.dataset.store.home))  # at once: a copy waits for a GPU
        return self._load_all([batch.tensor_split(self.n_ranks)[self.rank] for batch in batches])

    def in_order(self) -> Iterator[SegmentBatch]:
        """Batches in the order of the split's table."""
        batches = self._divide(torch.arange(len(self.dataset), device=self.dataset.store.home))
        return self._load_all(batches[self.rank :: self.n_ranks])

    def _divide(self, order: torch.Tensor) -> Sequence[torch.Tensor]:
        return order.split(self.batch_size)[: len(self)]

    def _load_all(self, parts: Sequence[torch.Tensor]) -> Iterator[SegmentBatch]:
        stored: Iterator[SegmentBatch] = self._gather_all(parts)
        if self._is_pinned:
            stored = copied_ahead(stored, self.device)
        return (self.dataset.restore(batch.to(self.device)) for batch in stored)

    def _gather_all(self, parts: Sequence[torch.Tensor]) -> Iterator[SegmentBatch]:
        """Batches as they are stored, where they are stored."""
        if not self.n_workers:
            yield from map(self._gather, parts)
            return
        with ThreadPoolExecutor(self.n_workers) as pool:
            ahead: deque[Future[SegmentBatch]] = deque()
            for part in parts:
                ahead.append(pool.submit(self._gather, part))
                if len(ahead) > self.n_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _gather(self, rows: torch.Tensor) -> SegmentBatch:
        stored = self.dataset.gather_stored(rows)
        return stored.pin_memory() if self._is_pinned else stored

    @property
    def _is_pinned(self) -> bool:
        """Whether batches are copied to a GPU: from other memory the host would wait for it."""
        return self.device.startswith("cuda") and self.dataset.store.home == "cpu"


def copied_ahead(batches: Iterator[SegmentBatch], device: str) -> Iterator[SegmentBatch]:
    """Copies of pinned batches on a GPU: the next one is under way while one is worked on.

    Copies have a stream of their own. The GPU's work on a batch waits for its copy; the host waits
    for nothing.
    """
    stream = torch.cuda.Stream(device)

    def send(batch: SegmentBatch) -> tuple[SegmentBatch, torch.cuda.Event]:
        with torch.cuda.stream(stream):
            copy = batch.to(device, non_blocking=True)
        return copy, stream.record_event()

    for copy, arrived in one_ahead(map(send, batches)):
        work = torch.cuda.current_stream(device)
        work.wait_event(arrived)
        for tensor in copy.tensors():
            tensor.record_stream(work)  # its memory isn't free before the work on it is done
        yield copy


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; before one is given, the next is asked for."""
    for item in items:
        for following in items:
            yield item
            item = following
        yield item
