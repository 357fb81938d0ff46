"""A new person in a few minutes: only what the encoder has for each subject is fitted.

Enters: a solver of new subjects, and the checkpoint of a model that was trained on others. Leaves:
the solver with that model's weights, and layers of its own for each new subject, which begin as the
mean of those of the learned subjects. The scale of the new brain signals comes from the training
segments of the new recordings, as always; that of the features is the trained model's.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bm.segments import SegmentBatch, SegmentDataset, SegmentLoader
from bm.solver import Solver

logger = logging.getLogger(__name__)

Batch = TypeVar("Batch")
PER_SUBJECT = ("meg.subject_layers.weights", "meg.subject_embedding.embedding.weight")
"""Weights with one row per subject."""


@dataclass(frozen=True)
class Calibration:
    """How the layers of new subjects are fitted; the defaults served well on simulated listeners.

    Attributes
    ----------
    n_steps : of the optimiser.
    batch_size : segments per step, which are also the candidates of a contrastive loss.
    lr : of Adam.
    seed : order of the segments.
    """

    n_steps: int = 100
    batch_size: int = 64
    lr: float = 3e-3
    seed: int = 0


def welcome(solver: Solver, state: Mapping[str, Any], minutes: float | None = None) -> None:
    """Give a solver of new subjects the best weights of a checkpoint, and its scale of features.

    Each new subject gets the mean of the learned subjects.

    Parameters
    ----------
    solver : built on recordings of the new subjects, with the configuration of the checkpoint.
    state : what `read_checkpoint` gives.
    minutes : only the training segments in the first so many minutes of each recording are known,
        as if it had ended there, for the scale of the brain signals too; None: all.

    Raises
    ------
    ValueError : the weights don't fit, the model has nothing of its own for each subject, or there
        are no training segments in the first minutes.
    """
    if minutes is not None:
        train = _first_minutes(solver.splits.datasets["train"], minutes)
        solver.splits.datasets["train"] = train
        solver.scaler.fit(train, len(solver.splits.prepared), solver.training.seed)
    for name in ("feature_centre", "feature_scale"):
        setattr(solver.scaler, name, state["scaler"][name])
    here, weights = solver.models.state_dict(), dict(state["best_state"])
    n_learned = None if state["subjects"] is None else len(state["subjects"])
    for name in _per_subject(solver.models):
        weights[name] = weights[name][:n_learned].mean(dim=0).expand_as(here[name]).clone()
    try:
        solver.models.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"The checkpoint doesn't fit these recordings: {error}") from error
    _keep(solver)


def calibrate(solver: Solver, settings: Calibration | None = None) -> list[float]:
    """Fit what the model has for each subject on the training segments; all else stays.

    Parameters
    ----------
    solver : of new subjects, see `welcome`; its best state becomes the calibrated one.
    settings : how to fit.

    Returns
    -------
    Loss before each step.

    Raises
    ------
    ValueError : there is nothing to fit, or nothing to fit it on.
    """
    settings = settings or Calibration()
    solver.models.load_state_dict(solver.best_state)
    solver.models.eval()  # batch norm keeps its statistics, and no sensor is dropped

    def loss_of(batch: SegmentBatch) -> Tensor:
        prediction = solver.predict(batch)
        loss: Tensor = solver.loss(prediction.estimate, prediction.target)
        return loss

    losses = fit(solver.models, _batches(solver, settings), loss_of, settings)
    _keep(solver)
    n_segments = len(solver.splits.datasets["train"])
    logger.info("Calibrated on %d segments: loss %.3f to %.3f.", n_segments, losses[0], losses[-1])
    return losses


def fit(
    models: nn.Module,
    batches: Iterable[Batch],
    loss_of: Callable[[Batch], Tensor],
    settings: Calibration,
) -> list[float]:
    """Fit what models have for each subject; all else stays.

    Parameters
    ----------
    models : in evaluation mode.
    batches : without end.
    loss_of : loss of a batch.
    settings : how to fit.

    Returns
    -------
    Loss before each step.

    Raises
    ------
    ValueError : there is nothing to fit, or the settings make no sense.
    """
    if settings.n_steps < 1 or settings.batch_size < 2:
        raise ValueError(f"{settings}: at least 1 step of at least 2 segments is needed.")
    fitted = [models.get_parameter(name) for name in _per_subject(models)]
    optimizer = torch.optim.Adam(fitted, settings.lr)
    losses = []
    for _, batch in zip(range(settings.n_steps), batches, strict=False):
        loss = loss_of(batch)
        gradients = torch.autograd.grad(loss, fitted)
        for parameter, gradient in zip(fitted, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        losses.append(loss.item())
    return losses


def draw(n: int, settings: Calibration) -> Iterator[Tensor]:
    """Rows [B] of batches without end, each of `n` segments in turn."""
    generator = torch.Generator().manual_seed(settings.seed)
    size = min(settings.batch_size, n)
    while True:
        order = torch.randperm(n, generator=generator)
        yield from order[: n - n % size].split(size)


def _first_minutes(dataset: SegmentDataset, minutes: float) -> SegmentDataset:
    """Segments whose anchor lies in the first minutes after the first one of its recording."""
    table = dataset.table
    since = table["time"] - table.groupby("recording")["time"].transform("min")
    early = table[since < 60 * minutes]
    if not len(early):
        raise ValueError(f"minutes={minutes}: there are no training segments in them.")
    return SegmentDataset(
        early, dataset.store, dataset.stimuli, dataset.n_times, dataset.n_baseline
    )


def _per_subject(models: nn.Module) -> list[str]:
    """Names of the weights that have one row per subject."""
    names = [name for name, _ in models.named_parameters() if name in PER_SUBJECT]
    if not names:
        raise ValueError(
            "The model has nothing of its own for each subject (simpleconv.subject_layers, "
            "simpleconv.subject_dim), so there is nothing to calibrate."
        )
    return names


def _batches(solver: Solver, settings: Calibration) -> Iterator[SegmentBatch]:
    """Batches without end, in the order that the seed gives."""
    train = solver.splits.datasets["train"]
    size = min(settings.batch_size, len(train))
    loader = SegmentLoader(train, size, solver.training.device, settings.seed)
    for number in itertools.count():
        for batch in loader.epoch(number):
            if len(batch) == size:  # a smaller set of candidates is another task
                yield batch


def _keep(solver: Solver) -> None:
    """Make the present weights the best ones."""
    solver.best_state = {name: value.clone() for name, value in solver.models.state_dict().items()}
