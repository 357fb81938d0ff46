"""Train, validate and test; checkpoint every epoch and resume exactly.

All randomness of an epoch follows from the seed and the epoch's number, so a run that was killed
and restarted goes through the same numbers as one that was not. Several processes (`bm.distrib`)
share each batch and stay alike; the first of them writes.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bm import distrib
from bm.accumulation import backward_in_parts
from bm.checkpoint import CHECKPOINT, check_same_data, read_checkpoint, write_checkpoint
from bm.classes import RegressionClassificationLoss, class_accuracy
from bm.core.progress import progress
from bm.divergence import LossWatch
from bm.evaluation import Retrieval, SegmentFeatures, Watch, retrieve
from bm.evaluation.words import word_accuracy
from bm.losses import spectral_penalty
from bm.objective import Objective
from bm.optimizer import Optimizer, OptimizerSettings
from bm.scaling import BatchScaler
from bm.segments import (
    Prediction,
    SegmentBatch,
    SegmentDataset,
    SegmentLoader,
    Splits,
    align_to_delay,
)
from bm.training import History, Training, check_ranks, mean_loss

logger = logging.getLogger(__name__)

N_LOSSES_SHOWN = 50
"""In the progress bar of an epoch."""


class Solver:
    """Trains a brain encoder and keeps its state.

    Parameters
    ----------
    splits : segments.
    models : "meg": the brain encoder; optionally "features": a model of the target, and "loss", if
        these are to be trained too.
    loss : of estimates and targets.
    scaler : fitted on the training split.
    training : settings.
    settings : of the optimizer.
    folder : where the checkpoint lives; None: nothing is kept.
    about : plain values that make the checkpoint self-contained (configuration, versions, ...).
    publish : told the whole history after each epoch.
    """

    def __init__(
        self,
        splits: Splits,
        models: nn.ModuleDict,
        loss: nn.Module,
        scaler: BatchScaler,
        training: Training,
        settings: OptimizerSettings,
        folder: Path | None = None,
        about: dict[str, Any] | None = None,
        publish: Callable[[History], None] | None = None,
    ):
        self.splits = splits
        self.training = training
        self.models = models.to(training.device)
        self.loss = loss.to(training.device)
        self.scaler = scaler
        self.layouts = splits.layouts.to(training.device)
        self.optimizer = Optimizer(self.models, settings)
        self.folder = folder
        self.about = about or {}
        self.publish = publish
        self.objective = Objective(loss, splits.datasets, self.target, training)
        self.history: History = []
        self.best_state: dict[str, Tensor] = deepcopy(models.state_dict())
        self.best_loss = math.inf
        self.best_epoch = self.tested_epoch = -1

    @property
    def model(self) -> nn.Module:
        """The brain encoder."""
        return self.models["meg"]

    def run(self) -> History:
        """Train to the end, from the checkpoint if there is one; returns the history."""
        self.restore()
        self.training.make_fast(self.model)
        check_ranks(self.training, self.splits, self.models, len(self.history))
        while not self.is_finished:
            self._run_epoch(len(self.history))
            self.save()
            if self.publish:
                self.publish(self.history)
        logger.info("Best epoch: %d, valid loss %.4f.", self.best_epoch + 1, self.best_loss)
        return self.history

    def segments(self, split: str) -> SegmentDataset:
        """Segments of a split, with scaled features if these have room in memory."""
        return self.scaler.with_scaled_features(self.splits.datasets[split])

    @property
    def is_finished(self) -> bool:
        """All epochs are done, or the validation loss has stopped falling."""
        n_done, training = len(self.history), self.training
        return n_done >= training.epochs or n_done - 1 - self.best_epoch >= training.patience

    def _run_epoch(self, epoch: int) -> None:
        torch.manual_seed(self.training.seed * 100_003 + epoch)
        metrics = {"train": self._train(epoch)}
        with self.optimizer.averaged():
            metrics["valid"] = self._validate()
            if metrics["valid"]["loss"] < self.best_loss:
                self.best_loss, self.best_epoch = metrics["valid"]["loss"], epoch
                self.best_state = deepcopy(self.models.state_dict())
        self.history.append(metrics)
        is_due = self.is_finished or (epoch + 1) % self.training.eval_every == 0
        if is_due and self.best_epoch > self.tested_epoch:
            metrics["test"] = self.test()
            self.tested_epoch = self.best_epoch
        for stage, values in metrics.items():
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            logger.info("Epoch %d %s: %s", epoch + 1, stage, shown)

    def _train(self, epoch: int) -> dict[str, float]:
        self.models.train()
        self.objective.begin(epoch)
        loader = self._loader("train", self.training.max_batches)
        mean = distrib.Mean()
        bar = progress(
            loader.epoch(epoch), f"epoch {epoch + 1}", "segments", len(loader),
            self.training.batch_size, self.training.n_prints,
        )  # fmt: skip
        every = max(1, len(loader) // N_LOSSES_SHOWN)
        policy, dataset = self.training.on_bad_loss, loader.dataset
        watch = LossWatch(policy, self.models, dataset, self.scaler, epoch, every, self.folder)
        for number, batch in enumerate(bar, epoch * len(loader)):
            scaled = self.scaler(batch, in_place=True)
            of_ranks = distrib.counts(len(scaled))
            if not watch.has_all(of_ranks):
                continue
            self.optimizer.zero_grad()
            share = len(scaled) / sum(of_ranks)
            loss = self._backward(scaled, share)
            if self.training.svd:
                (spectral_penalty(self.model) * self.training.svd * share).backward()
            distrib.sum_gradients(self.optimizer.parameters)
            if not watch.accepts(loss, scaled.row, self.optimizer.parameters):
                continue
            self.optimizer.step(number, len(loader))
            mean.add(loss, len(scaled))
            if bar.n % every == 0:  # reading the loss makes the host wait for a GPU
                bar.set_postfix_str(f"loss {mean.here:.3f}", refresh=False)
        distrib.average_statistics(self.models)
        return {**watch.counted(), "loss": mean_loss(mean, f"training (epoch {epoch + 1})")}

    def _backward(self, batch: SegmentBatch, factor: float) -> Tensor:
        """Loss of a scaled batch, after `factor` times its gradients went to the parameters."""
        n_at_once = self.training.micro_batch or len(batch)
        if n_at_once >= len(batch):
            prediction, mask = self._forward(batch)
            loss = self.objective(prediction.estimate, prediction.target, batch.row, mask, "train")
            (loss * factor).backward()
            return loss.detach()

        def forward(part: SegmentBatch) -> tuple[Tensor, Tensor]:
            prediction, _ = self._forward(part)
            return prediction.estimate, prediction.target

        def loss_of(estimates: Tensor, targets: Tensor) -> Tensor:
            return self.objective(
                estimates, targets, batch.row, self._mask(batch, targets), "train"
            )

        parts = [batch.select(rows) for rows in torch.arange(len(batch)).split(n_at_once)]
        return backward_in_parts(parts, forward, loss_of, self.models, factor)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Loss on the validation split: the same batches in every epoch."""
        self.models.eval()
        mean = distrib.Mean()
        for unscaled in self._loader("valid", self.training.max_batches).epoch(0):
            batch = self.scaler(unscaled, in_place=True)
            prediction, mask = self._forward(batch)
            loss = self.objective(prediction.estimate, prediction.target, batch.row, mask, "valid")
            mean.add(loss, len(batch))
        return {"loss": mean_loss(mean, "validation")}

    def test(self) -> dict[str, float]:
        """Segment and word accuracy of the best state on the test split."""
        segments = self.retrieve().metrics()
        training = self.training
        prefix = f"{training.word_study}/" if training.word_study else ""
        of_study = [
            index for index, name in enumerate(self.splits.recordings) if name.startswith(prefix)
        ]
        with self.best(), torch.no_grad():
            test = self.splits.datasets["test"]
            words = word_accuracy(
                test, self.queries(test).in_order(), self.estimate, self.target,
                top_x=training.word_top_x,
                n_negatives=training.word_negatives,
                n_recordings=training.word_recordings,
                seed=training.seed,
                recordings=of_study,
                similarity=self.objective.similarity,
                dtype=training.dtype,
            )  # fmt: skip
            classes = {}
            if isinstance(self.loss, RegressionClassificationLoss):
                loader = self._load(self.segments("test"), training.n_evaluated)
                classes = class_accuracy(loader.in_order(), self.predict, self.loss.columns)
        return {**segments, **words, **classes}

    def retrieve(self, split: str = "test", watch: Watch | None = None) -> Retrieval:
        """Retrieve the segments of a split with the best state."""
        segments = self.splits.datasets[split]
        with self.best(), torch.no_grad():
            loader = self.queries(segments)
            batches = progress(
                loader.in_order(), f"retrieve {split}", "segments", len(loader), loader.batch_size
            )
            return retrieve(
                segments, iter(batches), self.estimate, self.target,
                similarity=self.objective.similarity, watch=watch, dtype=self.training.dtype,
            )  # fmt: skip

    def predict(self, batch: SegmentBatch) -> Prediction:
        """Estimates and targets of an unscaled batch."""
        prediction, _ = self._forward(self.scaler(batch.to(self.training.device)))
        return replace(prediction, estimate=self._or_noise(prediction.estimate, batch))

    def estimate(self, batch: SegmentBatch) -> SegmentFeatures:
        """Estimates of an unscaled batch, whose features are not looked at."""
        scaled = self.scaler(batch.to(self.training.device))
        meg, _ = self._aligned(scaled)
        return SegmentFeatures(self._or_noise(self._encode(meg, scaled), batch), scaled.row)

    def target(self, batch: SegmentBatch) -> SegmentFeatures:
        """Targets of an unscaled batch, without running the brain encoder."""
        batch = self.scaler(batch.to(self.training.device))
        _, features = self._aligned(batch)
        return SegmentFeatures(self._target(features), batch.row)

    def queries(self, segments: SegmentDataset) -> SegmentLoader:
        """Batches of segments for `estimate`."""
        return self._load(segments.without_features(), self.training.n_evaluated)

    @contextmanager
    def best(self) -> Iterator[None]:
        """Within this context the models are those of the best epoch, in evaluation mode."""
        current = deepcopy(self.models.state_dict())
        was_training = self.models.training
        self.models.load_state_dict(self.best_state)
        self.models.eval()
        try:
            yield
        finally:
            self.models.load_state_dict(current)
            self.models.train(was_training)

    def state_dict(self) -> dict[str, Any]:
        """Everything in plain tensors, numbers and containers."""
        return {
            "models": self.models.state_dict(),
            "best_state": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "tested_epoch": self.tested_epoch,
            "precision": self.training.precision,
            "layouts": self.layouts,
            "subjects": self.splits.subjects,
            "recordings": self.splits.recordings,
            **self.about,
        }

    def save(self) -> None:
        """Replace the checkpoint, atomically."""
        if self.folder is not None and distrib.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_checkpoint(self.folder / CHECKPOINT, self.state_dict())

    def restore(self, path: Path | None = None) -> bool:
        """Load this experiment's checkpoint, or that at `path`; returns whether there was one."""
        path = path or (self.folder and self.folder / CHECKPOINT)
        if path is None or not path.exists():
            return False
        state = read_checkpoint(path)
        check_same_data(path, state, self.state_dict())
        self.models.load_state_dict(state["models"])
        self.scaler.load_state_dict(state["scaler"])
        if state["optimizer"] is None:
            logger.info("%s holds no state of the optimizer: training would begin anew.", path)
        else:
            self.optimizer.load_state_dict(state["optimizer"])
        self.best_state = state["best_state"]
        self.history = state["history"]
        self.best_loss, self.best_epoch = state["best_loss"], state["best_epoch"]
        self.tested_epoch = state["tested_epoch"]
        known = {key: state[key] for key in self.about if state.get(key) is not None}
        self.about = {**self.about, **known}
        logger.info("Resumed after epoch %d from %s.", len(self.history), path)
        return True

    def start_from(self, path: Path, best: bool = True) -> None:
        """Begin with the weights of another experiment of the same architecture."""
        state = read_checkpoint(path)
        self.models.load_state_dict(state["best_state" if best else "models"])
        self.best_state = deepcopy(self.models.state_dict())
        logger.info("Weights taken from %s (%s state).", path, "best" if best else "last")

    def _loader(self, split: str, max_batches: int | None) -> SegmentLoader:
        return self._load(self.segments(split), self.training.batch_size, max_batches)

    def _load(
        self, segments: SegmentDataset, batch_size: int, max_batches: int | None = None
    ) -> SegmentLoader:
        training = self.training
        return SegmentLoader(
            segments,
            batch_size,
            training.device,
            training.seed,
            max_batches,
            training.n_workers,
            distrib.rank(),
            distrib.world_size(),
        )

    def _forward(self, batch: SegmentBatch) -> tuple[Prediction, Tensor | None]:
        """Predict a scaled batch; also the mask [B, 1, T] of samples that count, if not all do."""
        meg, features = self._aligned(batch)
        estimate, target = self._encode(meg, batch), self._target(features)
        return Prediction(estimate, target, batch.row), self._mask(batch, target)

    def _encode(self, meg: Tensor, batch: SegmentBatch) -> Tensor:
        with self.training.autocast():
            estimate = self.model(meg, batch.subject_index, self.layouts, batch.layout_index)
        return estimate.float()

    def _mask(self, batch: SegmentBatch, target: Tensor) -> Tensor | None:
        mask = batch.mask[..., : target.shape[-1]]
        return mask.to(target.dtype) if self.training.mask_loss else None

    def _or_noise(self, estimates: Tensor, batch: SegmentBatch) -> Tensor:
        """Estimates of a batch, or noise in their place where that is the control."""
        if not self.training.random_estimates:
            return estimates
        generator = torch.Generator().manual_seed(int(batch.row[0]))
        return torch.randn(estimates.shape, generator=generator).to(estimates.device)

    def _aligned(self, batch: SegmentBatch) -> tuple[Tensor, Tensor]:
        training = self.training
        return align_to_delay(batch.meg, batch.features, training.delay, training.sample_rate)

    def _target(self, features: Tensor) -> Tensor:
        if "features" not in self.models:
            return features
        target: Tensor = self.models["features"](features)
        return target
