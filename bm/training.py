"""How to train: the settings of the solver, and the history that it keeps."""

import logging
import math
import os
import shutil
import sys
from dataclasses import dataclass

import torch
from torch import nn

from bm import distrib
from bm.core.hashing import digest
from bm.core.machine import bf16_unit
from bm.core.messages import check_choice
from bm.segments import Splits

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "tf32", "bf16")
AUTO = "auto"
"""In their place: bf16 where the device multiplies it, see `choose_precision`."""
ON_BAD_LOSS = ("error", "skip")
"""What to do where a loss isn't finite: stop, or leave out the batch."""
History = list[dict[str, dict[str, float]]]

EVALUATED_AT_ONCE = 32
"""Segments that a model is asked about: more would take memory, fewer take a small model longer."""


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes
    ----------
    epochs, batch_size, max_batches : at most so many epochs of so many batches (None: all).
    patience : stop after so many epochs without a lower validation loss.
    seed : of initial weights, order of segments, dropout.
    delay : seconds from sound to brain response.
    sample_rate : Hz.
    device : "cpu", "cuda", ...
    precision : "fp32", "tf32" for products of matrices on a GPU, or "bf16" autocast.
    compile : whether torch.compile makes kernels for the brain encoder, at its first steps.
    micro_batch : segments whose activations are held at a time; None: the whole batch.
    eval_every : test the best state every so many epochs if it has changed; always after the last.
    n_workers : batches prepared ahead.
    mask_loss : only samples in which a word is heard count.
    negatives, negative_pool_size : further candidates per batch, see `bm.objective`.
    svd : weight of the penalty on the largest singular values of the encoder's kernels.
    negatives_scope : an estimate's candidates are those of its "rank", or of "all" ranks.
    word_top_x, word_negatives, word_recordings : the word monitor, see `bm.evaluation.words`.
    word_study : the word monitor looks at this study only; None: all.
    on_bad_loss : stop ("error") where a loss isn't finite, or "skip" the batch.
    random_estimates : test with noise in place of the estimates (a control).
    n_prints : progress lines per epoch where the output isn't a terminal.
    """

    epochs: int
    batch_size: int
    sample_rate: float
    max_batches: int | None = None
    patience: int = 10
    seed: int = 2036
    delay: float = 0.0
    device: str = "cpu"
    precision: str = "fp32"
    compile: bool = False
    micro_batch: int | None = None
    eval_every: int = 1
    n_workers: int = 0
    mask_loss: bool = False
    negatives: int | None = None
    negative_pool_size: int | None = None
    svd: float = 0.0
    negatives_scope: str = "rank"
    word_top_x: int = 10
    word_negatives: int = 10_000
    word_recordings: int = 40
    word_study: str | None = None
    random_estimates: bool = False
    n_prints: int = 5
    on_bad_loss: str = "error"

    def __post_init__(self) -> None:
        check_choice("Training.precision", self.precision, PRECISIONS)
        check_choice("optim.on_bad_loss", self.on_bad_loss, ON_BAD_LOSS)
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(
                f"optim.micro_batch={self.micro_batch} must be at least 1, or null for the whole "
                "batch."
            )

    def make_fast(self, model: nn.Module) -> None:
        """Let a GPU multiply in TF32, or not; and have a model compiled when it is first used.

        Raises
        ------
        ValueError : there is nothing to compile it with.
        """
        torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        if self.precision == "tf32" and not self.device.startswith("cuda"):
            logger.warning("optim.precision=tf32 is for GPUs: %s works in fp32.", self.device)
        if self.compile:
            compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
            if shutil.which(compiler) is None:
                raise ValueError(
                    f"optim.compile=true needs a C++ compiler, but there is no {compiler}: install "
                    "it, name another in the variable CXX, or set optim.compile=false."
                )
            model.compile()  # parameters and their names stay as they are

    @property
    def dtype(self) -> torch.dtype:
        """In which matrices are multiplied."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def autocast(self) -> torch.autocast:
        """Context in which they are."""
        device_type = torch.device(self.device).type
        return torch.autocast(device_type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def n_evaluated(self) -> int:
        """Segments per batch where no loss looks at the whole of it."""
        return min(self.batch_size, EVALUATED_AT_ONCE)


def choose_precision(wanted: str, device: str) -> str:
    """The configured precision; for "auto" bf16 if the device multiplies it, else fp32 (logged).

    Several processes choose the same, so all of them must ask: bf16 if each has such a device.
    """
    if wanted != AUTO:
        return wanted
    unit = bf16_unit(device)
    chosen = "bf16" if all(distrib.counts(int(unit is not None))) else "fp32"
    reason = f"{unit} multiplies bf16"
    if chosen == "fp32":
        who = device if unit is None else "the device of another process"
        reason = f"{who} has nothing that multiplies bf16"
    logger.info("optim.precision=auto: %s, as %s.", chosen, reason)
    return chosen


def mean_loss(losses: distrib.Mean, stage: str) -> float:
    """Loss of a stage over all ranks.

    Raises
    ------
    ValueError : no segments were left.
    FloatingPointError : training has diverged.
    """
    mean = losses.everywhere()
    if mean is None:
        raise ValueError(
            f"No segments left in {stage}: all were rejected. Is norm.max_scale too low?"
        )
    if not math.isfinite(mean):
        raise diverged(mean, stage)
    return mean


def check_ranks(training: Training, splits: Splits, models: nn.Module, n_epochs: int) -> None:
    """Make sure that all ranks start from the same, and say how they share a batch."""
    if distrib.world_size() == 1:
        return
    sizes = [len(dataset) for dataset in splits.datasets.values()]
    weights = [weight.double().sum().item() for weight in models.state_dict().values()]
    begun = digest([splits.recordings, sizes, weights, n_epochs])
    distrib.check_alike(begun, "recordings, segments or initial weights")
    distrib.share_batch(training.batch_size, training.negatives_scope)


def diverged(loss: float, stage: str, kept: str = "") -> FloatingPointError:
    """The error of a loss that isn't finite, with what can be done.

    Parameters
    ----------
    kept : sentence that says where the batch lies.
    """
    return FloatingPointError(
        f"The loss became {loss} in {stage}. {kept}Try a lower optim.lr, optim.precision=fp32, "
        "norm.clip=true with norm.max_scale=20, or optim.on_bad_loss=skip if it is a few batches."
    )
