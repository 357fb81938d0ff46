"""A small encoder, and what is put into it, for tests of models."""

from typing import Any

import torch
from torch import Tensor, nn

from bm.core.layout import NO_POSITION
from bm.models import SimpleConv

CLIP_CONV: dict[str, Any] = {
    "hidden": 16,
    "depth": 10,
    "kernel_size": 3,
    "dilation_period": 5,
    "skip": True,
    "glu": 2,
    "glu_context": 1,
    "batch_norm": True,
    "gelu": True,
    "merger": True,
    "merger_channels": 12,
    "merger_pos_dim": 32,
    "initial_linear": 12,
    "subject_layers": True,
    "subject_dim": 0,
    "complex_out": True,
}


def make_layouts(n_layouts: int, n_sensors: int, n_missing: int = 2, seed: int = 0) -> Tensor:
    """Positions in 0..1; the last sensors have none."""
    layouts = torch.rand(n_layouts, n_sensors, 2, generator=torch.Generator().manual_seed(seed))
    layouts[:, n_sensors - n_missing :] = NO_POSITION
    return layouts


def run(model: SimpleConv, n_times: int = 30, n_sensors: int = 9, seed: int = 1) -> Tensor:
    """Output for three segments of two subjects, recorded with two layouts."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    meg = torch.randn(3, n_sensors, n_times, generator=generator).to(dtype)
    layouts = make_layouts(2, n_sensors).to(dtype)
    torch.manual_seed(seed)  # dropout
    return model(meg, torch.tensor([0, 1, 0]), layouts, torch.tensor([0, 0, 1]))


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
