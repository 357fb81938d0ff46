"""Spatial attention: from any number of sensors, anywhere on the head, to fixed virtual channels.

Reference: Défossez et al. 2023, doi:10.1038/s42256-023-00714-5, section "Spatial attention".
"""

import math

import torch
from torch import Tensor, nn

from bm.models.layers import of_subjects
from bm.models.sensors import is_absent, is_near, random_point

MARGIN = 0.2


class FourierEmbedding(nn.Module):
    """Embed sensor positions in waves over the plane, or over space.

    Parameters
    ----------
    dimension : size of the embedding, twice the number of frequencies per axis to the power of the
        number of axes.
    n_axes : 2, or 3.
    margin : the period of the slowest wave is 1 + 2 * margin, so that opposite borders differ.
    """

    def __init__(self, dimension: int = 2048, n_axes: int = 2, margin: float = MARGIN):
        super().__init__()
        self.n_frequencies = round((dimension / 2) ** (1 / n_axes))
        if 2 * self.n_frequencies**n_axes != dimension:
            power, numbers = ("square", (4, 8, 16, 32)) if n_axes == 2 else ("cube", (4, 5, 8, 10))
            possible = ", ".join(str(2 * number**n_axes) for number in numbers)
            raise ValueError(
                f"merger_pos_dim={dimension} must be twice a {power}, such as {possible}."
            )
        self.n_axes = n_axes
        self.margin = margin

    def forward(self, positions: Tensor) -> Tensor:
        """Positions [..., n_axes] in 0..1 to [..., dimension]."""
        number = torch.arange(self.n_frequencies, device=positions.device, dtype=positions.dtype)
        frequencies = 2 * math.pi * number / (1 + 2 * self.margin)
        phases = (positions + self.margin)[..., None] * frequencies  # [..., n_axes, n]
        waves = phases[..., 0, :]
        for axis in range(1, self.n_axes):  # the first axis varies slowest
            waves = (waves[..., None] + phases[..., axis, None, :]).flatten(-2)
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
    n_axes : 2: positions in the layout's plane, as published. 3: in the head, so that montages of
        different makers share a space (successors such as LISA, arXiv:2608.01481, attend so).
    n_subjects : attention of its own for each of so many subjects; None: shared, as published.
    n_learned : see `bm.models.layers.of_subjects`.
    """

    def __init__(
        self,
        n_virtual: int = 270,
        dimension: int = 2048,
        dropout: float = 0.2,
        n_axes: int = 2,
        n_subjects: int | None = None,
        n_learned: int | None = None,
    ):
        super().__init__()
        self.embedding = FourierEmbedding(dimension, n_axes)
        subjects = () if n_subjects is None else (n_subjects,)
        self.heads = nn.Parameter(torch.randn(*subjects, n_virtual, dimension) / dimension**0.5)
        self.dropout = dropout
        self.n_learned = n_learned

    def forward(
        self,
        meg: Tensor,
        layouts: Tensor,
        layout_index: Tensor,
        subject_index: Tensor | None = None,
    ) -> Tensor:
        """Mix sensors [B, C, T] into virtual channels [B, n_virtual, T].

        Parameters
        ----------
        meg : [B, C, T].
        layouts : [L, C, n_axes] positions in 0..1, `NO_POSITION` for a sensor without a place.
        layout_index : [B], which layout each segment was recorded with.
        subject_index : [B]; attention shared by all subjects doesn't need it.
        """
        if len(layouts) > len(meg):  # only those of the batch
            layouts, layout_index = layouts[layout_index], torch.arange(len(meg)).to(meg.device)
        if self.heads.ndim == 2:
            weights = self.attention(layouts).to(meg.dtype)
            one_for_all = len(weights) == 1
            return (weights[0] if one_for_all else weights.index_select(0, layout_index)) @ meg
        if subject_index is None:
            raise ValueError("Attention of its own for each subject needs the subjects' indices.")
        pairs, index = torch.stack([layout_index, subject_index]).unique(dim=1, return_inverse=True)
        heads = of_subjects(self.heads, pairs[1], self.n_learned)
        scores = torch.einsum("phd,pcd->phc", heads, self.embedding(layouts)[pairs[0]])
        weights = _softmax(scores, self._left_out(layouts)[pairs[0]]).to(meg.dtype)
        return weights.index_select(0, index) @ meg

    def attention(self, layouts: Tensor) -> Tensor:
        """Weights [L, n_virtual, C] of the sensors of each layout; the mean over the subjects.

        They sum to 1. A sensor without a position has 0; so have all in a layout without any.
        """
        left_out, embedding = self._left_out(layouts), self.embedding(layouts)
        if self.heads.ndim == 2:
            return _softmax(torch.einsum("hd,lcd->lhc", self.heads, embedding), left_out)
        each = [
            _softmax(torch.einsum("hd,lcd->lhc", heads, embedding), left_out)
            for heads in self.heads[: self.n_learned]
        ]
        return torch.stack(each).mean(dim=0)

    def extra_repr(self) -> str:
        """Settings, for the printed model."""
        return f"heads={tuple(self.heads.shape)}, dropout={self.dropout}"

    def _left_out(self, layouts: Tensor) -> Tensor:
        """[L, C] true for a sensor without a position, and for those that dropout leaves out."""
        absent = is_absent(layouts)
        if self.training and self.dropout > 0:
            far = absent | is_near(layouts, random_point(layouts), self.dropout)
            absent = torch.where(far.all(dim=-1, keepdim=True), absent, far)
        return absent


def _softmax(scores: Tensor, left_out: Tensor) -> Tensor:
    """Weights from scores [L, n_virtual, C], 0 for what is left out [L, C]."""
    lowest = torch.finfo(scores.dtype).min  # -inf for all sensors would give NaN
    weights = scores.masked_fill(left_out[:, None], lowest).softmax(dim=-1)
    return weights.masked_fill(left_out[:, None], 0.0)
