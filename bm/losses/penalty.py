"""Penalties on weights, added to a training loss."""

import torch
from torch import Tensor, nn


def spectral_penalty(model: nn.Module) -> Tensor:
    """Sum of the squared largest singular values of all convolutions' kernels [out, in × width].

    It keeps single directions of a layer from taking over, whatever the others do (Yoshida &
    Miyato 2017, doi:10.48550/arXiv.1705.10941; here with exact singular values).
    """
    kernels = [
        module.weight if isinstance(module, nn.Conv1d) else module.weight.transpose(0, 1)
        for module in model.modules()
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)
    ]
    if not kernels:
        raise ValueError("optim.svd is for models with convolutions: this one has none.")
    norms = [torch.linalg.matrix_norm(kernel.flatten(1).float(), ord=2) for kernel in kernels]
    return torch.stack(norms).square().sum()
