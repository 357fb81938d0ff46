"""Layers that look at the whole segment at once: a dual-path recurrent network, a transformer."""

import math

import torch
from torch import Tensor, nn


class DualPathRNN(nn.Module):
    """Recurrent layers along pieces of the signal and across them, in turn (Luo et al. 2020 [1]_).

    The signal is cut into about as many pieces as a piece has samples, so that each of the
    recurrent layers takes about the square root of T steps.

    Parameters
    ----------
    channels : before and after.
    depth : how often both paths are gone.

    References
    ----------
    .. [1] Luo et al. 2020, Dual-path RNN, doi:10.1109/ICASSP40776.2020.9054266
    """

    def __init__(self, channels: int, depth: int):
        super().__init__()
        self.within = nn.ModuleList(_RecurrentLayer(channels) for _ in range(depth))
        self.across = nn.ModuleList(_RecurrentLayer(channels) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T]."""
        n_times = x.shape[-1]
        length = math.ceil(n_times**0.5)
        n_pieces = math.ceil(n_times / length)
        x = nn.functional.pad(x, (0, n_pieces * length - n_times))
        x = x.unflatten(-1, (n_pieces, length)).permute(0, 2, 3, 1)  # [B, pieces, samples, C]
        for within, across in zip(self.within, self.across, strict=True):
            x = within(x.flatten(0, 1)).unflatten(0, (-1, n_pieces)).transpose(1, 2)
            x = across(x.flatten(0, 1)).unflatten(0, (-1, length)).transpose(1, 2)
        return x.permute(0, 3, 1, 2).flatten(2)[..., :n_times]


class _RecurrentLayer(nn.Module):
    """A bidirectional LSTM beside a skip connection: [N, K, C] to [N, K, C]."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.lstm = nn.LSTM(channels, channels, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(self.norm(x))
        return x + self.linear(y)


class TransformerHead(nn.Module):
    """Self-attention over the samples of a segment, after the convolutions.

    A convolution sees about a second around each sample; attention relates what is further apart,
    as in MEGformer and d'Ascoli et al. (arXiv:2412.17829).

    Parameters
    ----------
    channels : before and after.
    n_layers, n_heads : of the transformer.
    dropout : probability.
    """

    def __init__(self, channels: int, n_layers: int, n_heads: int = 8, dropout: float = 0.0):
        super().__init__()
        if channels % n_heads or channels % 2:
            raise ValueError(
                f"transformer_heads={n_heads} and an even number must divide the {channels} "
                "channels (hidden.meg)."
            )
        self.layers = nn.Sequential(
            *(_AttentionLayer(channels, n_heads, dropout) for _ in range(n_layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T]."""
        x = x.transpose(1, 2)
        return self.layers(x + _sinusoids(x)).transpose(1, 2)


class _AttentionLayer(nn.Module):
    """Self-attention, then two linear maps, each beside a skip connection: [B, T, C] to the same.

    torch's own layer has a shortcut for inference that `torch.compile` gets wrong (torch 2.13).
    """

    def __init__(self, channels: int, n_heads: int, dropout: float):
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.norm = nn.LayerNorm(channels)
        self.to_heads = nn.Linear(channels, 3 * channels)
        self.from_heads = nn.Linear(channels, channels)
        self.widen = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * channels),
            nn.GELU(),
            nn.Linear(2 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = self.to_heads(self.norm(x)).unflatten(-1, (3, self.n_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [B, heads, T, C / heads]
        chance = self.dropout if self.training else 0.0
        heads = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=chance)
        x = x + self._drop(self.from_heads(heads.transpose(1, 2).flatten(2)))
        return x + self._drop(self.widen(x))

    def _drop(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.dropout, self.training)


def _sinusoids(x: Tensor) -> Tensor:
    """Embedding [T, C] of the samples of x [B, T, C] (Vaswani et al. 2017, arXiv:1706.03762)."""
    n_times, channels = x.shape[1:]
    slowness = torch.arange(0, channels, 2, device=x.device) / channels
    phases = torch.arange(n_times, device=x.device)[:, None] / 10_000**slowness
    return torch.cat([phases.sin(), phases.cos()], dim=-1).to(x.dtype)
