"""The convolutions of a wav2vec2-like model, the same numbers in less than half the time on a CPU.

They take a quarter of the model's time there, half of it to move large arrays: each layer is
normalised over its channels, for which transformers puts them last and back first again. Here they
stay last, kernels are split into matrices that multiply the values where they lie, and the sound is
worked through in stretches whose arrays the processor's cache can hold.
"""

from typing import Any

import torch
from torch import Tensor, nn

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
    convolutions : the model's own, with `has_local_frames`; their weights are copied.
    """

    def __init__(self, convolutions: Any):
        super().__init__()
        layers = [LocalConvolution(layer) for layer in convolutions.conv_layers]
        self.layers = nn.ModuleList(layers)
        self.hop = 1
        self.width = 1  # of the sound that one frame sees
        for layer in reversed(layers):
            self.width = (self.width - 1) * layer.stride + layer.width
            self.hop *= layer.stride

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
        for layer in self.layers:
            values = layer(values)
        return values


class LocalConvolution(nn.Module):
    """A convolution over time with its norm and activation, from [B, n, C] to [B, m, F].

    The steps of the kernel are split into parts of at most a stride: what such a part sees of one
    place and of the next doesn't overlap, so that no copy is needed to multiply it.

    Parameters
    ----------
    layer : the model's own.
    """

    def __init__(self, layer: Any):
        super().__init__()
        self.stride = layer.conv.stride[0]
        weight = layer.conv.weight.detach().permute(2, 1, 0)  # [steps, C, F]
        self.width = len(weight)
        self.parts = nn.ParameterList(
            nn.Parameter(part.flatten(0, 1).contiguous(), requires_grad=False)
            for part in weight.split(self.stride)
        )
        bias = layer.conv.bias
        self.bias = weight.new_zeros(weight.shape[2]) if bias is None else bias
        self.norm = layer.layer_norm
        self.activation = layer.activation

    def forward(self, values: Tensor) -> Tensor:
        """[B, n, C] to [B, m, F]."""
        n_places = (values.shape[1] - self.width) // self.stride + 1
        sums = self.bias.repeat(len(values) * n_places, 1)
        for index, part in enumerate(self.parts):
            n_steps = len(part) // values.shape[2]
            seen = values[:, index * self.stride :].unfold(1, n_steps, self.stride)[:, :n_places]
            sums.addmm_(seen.transpose(2, 3).flatten(2).flatten(0, 1), part)
        result: Tensor = self.activation(self.norm(sums.unflatten(0, (-1, n_places))))
        return result
