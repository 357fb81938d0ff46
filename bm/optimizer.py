"""Steps of training: the optimizer, its learning rate, clipped gradients and averaged weights.

Enter: gradients, already added up over all ranks, and the number of the step. Leave: new weights.
Everything follows from the step's number and what `Optimizer.state_dict` holds, so a run that was
interrupted goes on exactly. All but Adam itself is off by default.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bm import distrib

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class OptimizerSettings:
    """How weights follow gradients.

    Attributes
    ----------
    name : "adam", or "adamw" [1]_: with `weight_decay`.
    lr, beta2 : learning rate, and decay of the mean squared gradient.
    weight_decay : share of the learning rate by which weights shrink at each step. Biases, gains
        of norms and single numbers are left alone: they can't overfit.
    schedule : "constant", or "cosine" [2]_: `lr` falls to 0 over the `epochs`, as small last steps
        settle what large ones leave noisy.
    warmup : epochs over which the learning rate rises from 0 before that, until Adam knows the
        scale of the gradients.
    max_gradient_norm : longer gradients, of all weights together, are shortened to it: one odd
        batch can't undo many; None: never.
    ema : decay per step of an average of the weights [3]_, which is then validated, kept as the
        best and tested in their place: it is less noisy than they are; None: no average.
    epochs : of the whole training.

    Raises
    ------
    ValueError : a value is out of its range, or has no effect.

    References
    ----------
    .. [1] Loshchilov & Hutter 2019, arXiv:1711.05101
    .. [2] Loshchilov & Hutter 2017, arXiv:1608.03983
    .. [3] Polyak & Juditsky 1992, doi:10.1137/0330046
    """

    name: str = "adam"
    lr: float = 3e-4
    beta2: float = 0.999
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: float = 0.0
    max_gradient_norm: float | None = None
    ema: float | None = None
    epochs: int = 1

    def __post_init__(self) -> None:
        if self.weight_decay < 0 or (self.weight_decay and self.name != "adamw"):
            raise ValueError(
                f"optim.weight_decay={self.weight_decay} must be 0, or more with "
                f"optim.name=adamw, not {self.name}."
            )
        if not 0 <= self.warmup < max(self.epochs, 1):
            raise ValueError(
                f"optim.warmup={self.warmup} must be at least 0 and less than "
                f"optim.epochs={self.epochs}."
            )
        if self.max_gradient_norm is not None and self.max_gradient_norm <= 0:
            raise ValueError(
                f"optim.max_gradient_norm={self.max_gradient_norm} must be above 0, or null."
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"optim.ema={self.ema} must be between 0 and 1, or null.")


class Optimizer:
    """Moves the weights of models, and averages them.

    Parameters
    ----------
    models : already on their device; their present weights are where the average begins.
    settings : how.
    """

    def __init__(self, models: nn.Module, settings: OptimizerSettings):
        self.models = models
        self.settings = settings
        kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
        fused = any(one.is_cuda for one in models.parameters())  # rounds in another order
        self.inner = kind(
            _groups(models, settings.weight_decay), settings.lr, (0.9, settings.beta2), fused=fused
        )
        self.average: dict[str, Tensor] | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        return [parameter for group in self.inner.param_groups for parameter in group["params"]]

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self.inner.zero_grad(set_to_none=True)

    def step(self, number: int, n_per_epoch: int) -> None:
        """Step number `number` from the beginning of training, with so many in an epoch."""
        settings = self.settings
        if settings.max_gradient_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, settings.max_gradient_norm)
        for group in self.inner.param_groups:
            group["lr"] = settings.lr * learning_rate_factor(settings, number, n_per_epoch)
        self.inner.step()
        if settings.ema is not None:
            self._add_to_average(min(settings.ema, (1 + number) / (10 + number)))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the models have the averaged weights, if there is an average."""
        if self.average is None:
            yield
            return
        current = deepcopy(self.models.state_dict())
        self.models.load_state_dict(self.average)
        distrib.average_statistics(self.models)  # each rank's went into its own average
        self.average = deepcopy(self.models.state_dict())
        try:
            yield
        finally:
            self.models.load_state_dict(current)

    def state_dict(self) -> dict[str, Any]:
        """State of torch's optimizer, and the average."""
        return {**self.inner.state_dict(), "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        average = state.get("average")
        self.inner.load_state_dict({k: v for k, v in state.items() if k != "average"})
        if average is not None:
            here = self.models.state_dict()
            average = {name: value.to(here[name].device) for name, value in average.items()}
        self.average = average

    @torch.no_grad()
    def _add_to_average(self, decay: float) -> None:
        """Also of running statistics; counts are those of the last step.

        The decay grows with the steps, as the first weights are not worth remembering.
        """
        state = self.models.state_dict()
        if self.average is None:
            self.average = deepcopy(state)
            return
        for name, value in state.items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)


def learning_rate_factor(settings: OptimizerSettings, number: int, n_per_epoch: int) -> float:
    """Learning rate at the middle of a step, relative to the configured one."""
    position = (number + 0.5) / n_per_epoch
    if position < settings.warmup:
        return position / settings.warmup
    if settings.schedule == "constant":
        return 1.0
    done = (position - settings.warmup) / (settings.epochs - settings.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _groups(models: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """All parameters in their order; with decay, those that shrink and those that don't."""
    parameters = list(models.parameters())
    if not weight_decay:
        return [{"params": parameters, "weight_decay": 0.0}]
    return [
        {"params": [one for one in parameters if one.dim() > 1], "weight_decay": weight_decay},
        {"params": [one for one in parameters if one.dim() <= 1], "weight_decay": 0.0},
    ]
