"""What training will need of memory, said before it begins, and what helps where that is too much.

Enters: a solver. Leaves: a line in the log; errors for want of memory that name the remedy.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from bm.segments.store import free_memory
from bm.solver import Solver

logger = logging.getLogger(__name__)

GB = 1e9
COPIES = 4
"""Of the weights, beside themselves: gradients, Adam's two moments, and the best state so far."""
PROBED = 2
"""Segments that go through the model so that its activations can be counted."""
NO_ROOM = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Budget:
    """Bytes that training takes.

    Attributes
    ----------
    signals, features : of all recordings, which are there already, features also scaled; nothing
        for signals on disk.
    model : weights and what training keeps beside them.
    segment : signals, targets and activations of a segment while it is learned from.
    n_segments : at a time.
    free : on the device of the model, now.
    """

    signals: int
    features: int
    model: int
    segment: int
    n_segments: int
    free: int

    @classmethod
    def of(cls, solver: Solver) -> "Budget":
        """Count what a solver has, and what a few of its segments take."""
        train, training = solver.splits.datasets["train"], solver.training
        scaled = solver.segments("train")  # first of all, as it takes of what is free
        tables = {
            table.data_ptr(): table.nbytes
            for stimuli in (train.stimuli, scaled.stimuli)
            for table in (*stimuli.rows, *stimuli.timelines)
        }
        weights = sum(one.nbytes for one in solver.models.state_dict().values())
        n_at_once = min(training.micro_batch or training.batch_size, training.batch_size)
        return cls(
            signals=train.store.n_bytes if train.store.residency != "disk" else 0,
            features=sum(tables.values()),
            model=weights * (1 + COPIES),
            segment=segment_bytes(solver),
            n_segments=min(n_at_once, len(train)),
            free=free_memory(training.device),
        )

    @property
    def batch(self) -> int:
        """All segments that are held at a time."""
        return self.segment * self.n_segments

    @property
    def fits(self) -> bool:
        """Whether what is still to come has room."""
        return self.batch + self.model <= self.free

    def __str__(self) -> str:
        return (
            f"signals {self.signals / GB:.2f} GB, features {self.features / GB:.2f} GB, "
            f"model with gradients and Adam {self.model / GB:.2f} GB, {self.n_segments} segments "
            f"at a time {self.batch / GB:.2f} GB ({self.segment / 1e6:.1f} MB each); "
            f"{self.free / GB:.1f} GB are free"
        )


def log_budget(solver: Solver) -> None:
    """Say what training needs, and what to do if it is more than there is."""
    if not len(solver.splits.datasets["train"]):
        return
    budget = Budget.of(solver)
    logger.info("Memory: %s.", budget)
    if not budget.fits:
        logger.warning("That may not fit. %s", remedy(solver, budget))


@contextmanager
def explaining_memory(solver: Solver) -> Iterator[None]:
    """Where memory runs out in this context, the error says what helps.

    Raises
    ------
    MemoryError : in place of what the allocator raised.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # the CPU's allocator has no error of its own
        if not any(text in str(error).lower() for text in NO_ROOM):
            raise
        reason = str(error).splitlines()[0]
        raise MemoryError(f"Out of memory ({reason}). {remedy(solver)}") from error


def remedy(solver: Solver, budget: Budget | None = None) -> str:
    """What would take less memory than this solver does."""
    training, store = solver.training, solver.splits.datasets["train"].store
    n_held = min(training.micro_batch or training.batch_size, training.batch_size)
    n_room = n_held // 2
    if budget is not None:
        n_room = min(n_room, (budget.free - budget.model) // (2 * max(budget.segment, 1)))
    n_less = 1 << max(0, n_room.bit_length() - 1)
    hints = [
        f"optim.micro_batch={n_less} (instead of {n_held} segments at a time; candidates and loss "
        "stay those of the whole batch)",
        "a smaller optim.batch_size",
    ]
    if training.precision != "bf16":
        hints.append("optim.precision=bf16")
    if store.residency != "disk":
        place = "host" if store.residency == "device" else "disk"
        hints.append(f"dset.residency={place} (signals are on {store.residency})")
    return f"What helps: {'; '.join(hints)}."


def segment_bytes(solver: Solver) -> int:
    """Bytes of a segment while it is learned from; weights and random numbers stay as they are."""
    train = solver.splits.datasets["train"]
    unscaled = train.gather(torch.arange(min(PROBED, len(train))))
    copies = 2 * (unscaled.meg.nbytes + unscaled.features.nbytes) // len(unscaled)
    if not len(solver.scaler(unscaled.to(solver.training.device))):
        return copies  # all of them are rejected
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {one.untyped_storage().data_ptr() for one in solver.models.parameters()}
    state, was_training = deepcopy(solver.models.state_dict()), solver.models.training
    device = torch.device(solver.training.device)
    gpus = [device] if device.type == "cuda" else []
    solver.models.train()
    with torch.random.fork_rng(devices=gpus):
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            prediction = solver.predict(unscaled)
    n_kept = max(1, len(prediction.row))
    solver.models.load_state_dict(state)
    solver.models.train(was_training)
    activations = sum(size for place, size in held.items() if place not in weights)
    outputs = 2 * prediction.estimate.nbytes // n_kept  # and its gradient
    return activations // n_kept + copies + outputs
