"""Spatial attention: from any number of sensors, anywhere on the head, to fixed virtual channels.

Reference: Défossez et al. 2023, doi:10.1038/s42256-023-00714-5, section "Spatial attention".
"""

import math

import torch
from torch import Tensor, nn

from bm.core.layout import NO_POSITION

MARGIN = 0.2


class FourierEmbedding(nn.Module):
    """Embed 2-D sensor positions in a plane of cosines and sines.

    Parameters
    ----------
    dimension : size of the embedding, twice the square of the number of frequencies per axis.
    margin : the period of the slowest wave is 1 + 2 * margin, so that opposite borders differ.
    """

    def __init__(self, dimension: int = 2048, margin: float = MARGIN):
        super().__init__()
        self.n_frequencies = math.isqrt(dimension // 2)
        if 2 * self.n_frequencies**2 != dimension:
            raise ValueError(
                f"merger_pos_dim={dimension} must be twice a square, such as 32, 128, 512, 2048."
            )
        self.margin = margin

    def forward(self, positions: Tensor) -> Tensor:
        """Positions [..., 2] in 0..1 to [..., dimension]."""
        number = torch.arange(self.n_frequencies, device=positions.device, dtype=positions.dtype)
        frequencies = 2 * math.pi * number / (1 + 2 * self.margin)
        phases = (positions + self.margin)[..., None] * frequencies  # [..., 2, n]
        waves = phases[..., 0, :, None] + phases[..., 1, None, :]  # [..., n, n]: x varies slowest
        waves = waves.flatten(-2)
        return torch.cat([waves.cos(), waves.sin()], dim=-1)


class SpatialAttention(nn.Module):
    """Weight sensors by where they are: each virtual channel is a softmax over the sensors.

    The weights depend on the sensor layout alone, so they are computed once per layout, not per
    segment. In training all sensors within `dropout` of one random point (the same for the whole
    batch) are left out, unless none would be left.

    Parameters
    ----------
    n_virtual : number of virtual channels.
    dimension : size of the positional embedding.
    dropout : radius in units of the layout's width; 0 turns it off.
    """

    def __init__(self, n_virtual: int = 270, dimension: int = 2048, dropout: float = 0.2):
        super().__init__()
        self.embedding = FourierEmbedding(dimension)
        self.heads = nn.Parameter(torch.randn(n_virtual, dimension) / dimension**0.5)
        self.dropout = dropout

    def forward(self, meg: Tensor, layouts: Tensor, layout_index: Tensor) -> Tensor:
        """Mix sensors [B, C, T] into virtual channels [B, n_virtual, T].

        Parameters
        ----------
        meg : [B, C, T].
        layouts : [L, C, 2] positions in 0..1, `NO_POSITION` for a sensor that doesn't take part.
        layout_index : [B], which layout each segment was recorded with.
        """
        weights = self.attention(layouts).to(meg.dtype)
        if len(weights) == 1:
            return weights[0] @ meg
        return weights[layout_index] @ meg

    def attention(self, layouts: Tensor) -> Tensor:
        """Weights [L, n_virtual, C] of the sensors of each layout.

        They sum to 1. A sensor without a position has 0; so have all in a layout without any.
        """
        absent = (layouts < NO_POSITION / 2).all(dim=-1)  # [L, C], at any precision
        if self.training and self.dropout > 0:
            centre = torch.rand(2).to(layouts.device)
            far = absent | ((layouts - centre).norm(dim=-1) <= self.dropout)
            absent = torch.where(far.all(dim=-1, keepdim=True), absent, far)
        scores = torch.einsum("hd,lcd->lhc", self.heads, self.embedding(layouts))
        lowest = torch.finfo(scores.dtype).min  # -inf for all sensors would give NaN
        weights = scores.masked_fill(absent[:, None], lowest).softmax(dim=-1)
        return weights.masked_fill(absent[:, None], 0.0)
