"""The convolutions of a wav2vec2-like model, the same numbers in half the time on a CPU.

They take a quarter of the model's time there, half of it to move large arrays: each layer is
normalised over its channels, for which transformers puts them last and back first again. Here they
stay last, and the sound is worked through in stretches whose arrays the processor's cache can hold.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FRAMES_AT_ONCE = 100
"""On a CPU, over the whole batch."""


def has_local_frames(convolutions: Any) -> bool:
    """Whether each frame depends on its own stretch of sound only: no norm goes over time."""
    norms = [getattr(layer, "layer_norm", None) for layer in convolutions.conv_layers]
    return all(isinstance(norm, nn.LayerNorm) for norm in norms)


class LocalConvolutions(nn.Module):
    """Convolutions of the waveform, equal but for rounding to those of transformers.

    Parameters
    ----------
    convolutions : the model's own, with `has_local_frames`.
    """

    def __init__(self, convolutions: Any):
        super().__init__()
        self.layers: Any = convolutions.conv_layers
        self.strides = [layer.conv.stride[0] for layer in self.layers]
        self.hop = math.prod(self.strides)
        self.width = 1  # of the sound that one frame sees
        for layer, stride in zip(reversed(self.layers), reversed(self.strides), strict=True):
            self.width = (self.width - 1) * stride + layer.conv.kernel_size[0]

    def forward(self, sound: Tensor) -> Tensor:
        """[B, n_samples] to [B, F, n_frames]."""
        n_frames = (sound.shape[1] - self.width) // self.hop + 1
        at_once = n_frames if sound.is_cuda else max(1, FRAMES_AT_ONCE // len(sound))
        frames = [
            self._frames(sound[:, self.hop * first :][:, : self.hop * (at_once - 1) + self.width])
            for first in range(0, n_frames, at_once)
        ]
        return torch.cat(frames, dim=1).transpose(1, 2)

    def _frames(self, sound: Tensor) -> Tensor:
        """[B, n_samples] to [B, n_frames, F]."""
        values = sound[..., None]
        for layer, stride in zip(self.layers, self.strides, strict=True):
            weight = layer.conv.weight.transpose(1, 2)  # [outputs, kernel, inputs]
            seen = values.unfold(1, weight.shape[1], stride).transpose(2, 3)
            values = F.linear(seen.flatten(2), weight.flatten(1), layer.conv.bias)
            values = layer.activation(layer.layer_norm(values))
        return values
