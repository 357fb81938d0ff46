"""Building blocks of the encoders: layers per subject, the stack of dilated convolutions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class SubjectLayers(nn.Module):
    """One linear map of the channels per subject.

    Parameters
    ----------
    n_in, n_out : channels before and after.
    n_subjects : number of subjects S.
    init_identity : start from the identity rather than from random matrices.
    n_learned : see `of_subjects`.

    Attributes
    ----------
    weights : [S, n_in, n_out].
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        n_subjects: int,
        init_identity: bool = False,
        n_learned: int | None = None,
    ):
        super().__init__()
        if init_identity and n_in != n_out:
            raise ValueError(f"An identity from {n_in} to {n_out} channels doesn't exist.")
        start = torch.eye(n_in).repeat(n_subjects, 1, 1) if init_identity else None
        if start is None:
            start = torch.randn(n_subjects, n_in, n_out) / n_in**0.5
        self.weights = nn.Parameter(start)
        self.n_learned = n_learned

    def forward(self, x: Tensor, subject_index: Tensor) -> Tensor:
        """Map [B, n_in, T] to [B, n_out, T], each segment by the matrix of its subject [B]."""
        return of_subjects(self.weights, subject_index, self.n_learned).transpose(1, 2) @ x


class SubjectEmbedding(nn.Module):
    """A learned vector per subject, appended to the channels at every sample.

    Parameters
    ----------
    n_subjects, dimension : size of the table.
    scale : factor on the table, which speeds up its learning.
    n_learned : see `of_subjects`.
    """

    def __init__(
        self, n_subjects: int, dimension: int, scale: float = 1.0, n_learned: int | None = None
    ):
        super().__init__()
        self.embedding = nn.Embedding(n_subjects, dimension)
        self.embedding.weight.data /= scale
        self.scale = scale
        self.n_learned = n_learned

    def forward(self, x: Tensor, subject_index: Tensor) -> Tensor:
        """[B, C, T] and [B] to [B, C + dimension, T]."""
        vector = of_subjects(self.embedding.weight, subject_index, self.n_learned) * self.scale
        return torch.cat([x, vector[:, :, None].expand(-1, -1, x.shape[-1])], dim=1)


def of_subjects(table: Tensor, subject_index: Tensor, n_learned: int | None = None) -> Tensor:
    """Rows [B, ...] of a table [S, ...] with one row per subject.

    Parameters
    ----------
    table : [S, ...].
    subject_index : [B]; -1 is a subject that was never seen.
    n_learned : an unseen subject gets the mean of the first so many rows, those of the subjects
        that were trained on: closer to any person than another person's row is. None: no such
        fallback; `SimpleConv` refuses unseen subjects then.
    """
    if n_learned is None:
        return table.index_select(0, subject_index)  # `table[...]` adds up gradients in any order
    mean = table[:n_learned].mean(dim=0, keepdim=True)
    return torch.cat([table, mean]).index_select(0, subject_index % (len(table) + 1))  # -1: last


class LayerScale(nn.Module):
    """A learned factor per channel that begins small (Touvron et al. 2021, arXiv:2103.17239)."""

    def __init__(self, channels: int, start: float):
        super().__init__()
        self.factors = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T]."""
        return x * self.factors[:, None]


class ConvSequence(nn.Module):
    """Stack of dilated convolutions with skip connections, some followed by a gated linear unit.

    Each layer is convolution, batch norm, activation; the input is added where shapes agree. After
    every `glu` layers a convolution doubles the channels and a gate halves them again.

    Parameters
    ----------
    channels : channels before the first layer and after each one.
    kernel_size : odd.
    dilation_growth, dilation_period : layer k has dilation growth ** (k % period), without a period
        growth ** k.
    glu : a gate after every `glu` layers; 0 for none.
    glu_context : samples on each side that the gate's convolution sees.
    activation : makes the activation module.
    activation_on_last : whether the last layer has batch norm, dropout and activation too.
    dropout, dropout_input : probabilities after each layer and on the input.
    scale : each layer that has a skip connection is multiplied by a learned factor per channel that
        begins here; None: no factor.
    """

    def __init__(
        self,
        channels: Sequence[int],
        activation: Callable[[], nn.Module],
        kernel_size: int = 3,
        dilation_growth: int = 2,
        dilation_period: int | None = None,
        batch_norm: bool = True,
        skip: bool = True,
        glu: int = 0,
        glu_context: int = 0,
        activation_on_last: bool = True,
        dropout: float = 0.0,
        dropout_input: float = 0.0,
        scale: float | None = None,
    ):
        super().__init__()
        if scale is not None and not skip:
            raise ValueError(f"scale={scale} is for skip connections: set skip=true, or leave it.")
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size={kernel_size} must be odd, so that input and output stay aligned."
            )
        self.skip = skip
        self.dropout_input = nn.Dropout(dropout_input)
        self.sequence = nn.ModuleList()
        self.glus = nn.ModuleDict()
        depth = len(channels) - 1
        for index, (n_in, n_out) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            dilation = dilation_growth ** (index % dilation_period if dilation_period else index)
            padding = kernel_size // 2 * dilation
            layer: list[nn.Module] = [
                nn.Conv1d(n_in, n_out, kernel_size, padding=padding, dilation=dilation)
            ]
            if index < depth - 1 or activation_on_last:
                layer += [nn.BatchNorm1d(n_out)] if batch_norm else []
                layer += [activation()]
                layer += [nn.Dropout(dropout)] if dropout else []
            if scale is not None and n_in == n_out:
                layer += [LayerScale(n_out, scale)]
            self.sequence.append(nn.Sequential(*layer))
            if glu and (index + 1) % glu == 0:
                gate = nn.Conv1d(n_out, 2 * n_out, 1 + 2 * glu_context, padding=glu_context)
                self.glus[str(index)] = nn.Sequential(gate, nn.GLU(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels[0], T] to [B, channels[-1], T]."""
        x = self.dropout_input(x)
        for index, layer in enumerate(self.sequence):
            y = layer(x)
            x = y + x if self.skip and y.shape == x.shape else y
            if str(index) in self.glus:
                x = self.glus[str(index)](x)
        return x
