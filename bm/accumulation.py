"""Gradients of a large batch on a small device: activations of one part at a time.

A contrastive loss looks at the whole batch, so the parts' losses can't just be added up. Here all
parts are first run without keeping activations; the loss of the whole batch gives the gradient of
each estimate and target; then each part is run again, and its share of the gradient goes back.
Candidates are those of the whole batch. Batch norm sees one part at a time.

Reference: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited
setup", doi:10.48550/arXiv.2101.06983.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

Part = TypeVar("Part")
Outputs = tuple[Tensor, Tensor]


def backward_in_parts(
    parts: Sequence[Part],
    forward: Callable[[Part], Outputs],
    loss: Callable[[Tensor, Tensor], Tensor],
    models: nn.Module,
    factor: float = 1.0,
) -> Tensor:
    """Add the gradients of a batch to those of the models' parameters; returns its loss.

    Parameters
    ----------
    parts : of the batch.
    forward : estimates and targets [b, F, T] of a part.
    loss : of all estimates and targets [B, F, T].
    models : what `forward` runs; random draws are the same in both runs, and running statistics
        are updated once.
    factor : on the gradients.
    """
    device = next(models.parameters()).device
    before = [buffer.clone() for buffer in models.buffers()]
    states, outputs = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state(device))
            outputs.append(forward(part))
        for buffer, value in zip(models.buffers(), before, strict=True):
            buffer.copy_(value)
    estimates, targets = (
        torch.cat(tensors).requires_grad_() for tensors in zip(*outputs, strict=True)
    )
    sizes = [len(estimate) for estimate, _ in outputs]
    outputs.clear()
    value = loss(estimates, targets)
    (value * factor).backward()  # the loss can have parameters, too
    gradients = (estimates.grad, targets.grad)
    for index, (part, state) in enumerate(zip(parts, states, strict=True)):
        _set_random_state(state, device)
        of_part = [None if whole is None else whole.split(sizes)[index] for whole in gradients]
        learned = [
            (output, gradient)
            for output, gradient in zip(forward(part), of_part, strict=True)
            if output.requires_grad and gradient is not None
        ]
        torch.autograd.backward([one for one, _ in learned], [one for _, one in learned])
    return value.detach()


def _random_state(device: torch.device) -> list[Tensor]:
    on_gpu = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_gpu]


def _set_random_state(state: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
