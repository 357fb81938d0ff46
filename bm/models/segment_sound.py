"""The sound of segments, encoded in the training graph."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class SegmentSound(nn.Module):
    """Replace the waveform among the features of segments by what an encoder makes of it.

    The encoder stays as it is: it isn't trained, and its weights aren't part of the state.

    Parameters
    ----------
    encoder : from [B, n_samples] to [B, F, n_frames], frames at even intervals.
    first : first channel of the waveform.
    width : number of its channels: samples of sound per sample of the brain signal.
    device : where the encoder runs.
    """

    def __init__(self, encoder: nn.Module, first: int, width: int, device: str):
        super().__init__()
        self.first = first
        self.width = width
        self.device = torch.device(device)
        self._encoder = (encoder.to(self.device).eval(),)  # in a tuple, torch doesn't see it

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C - width + F, T], each sample with the frame that it falls into."""
        before, wave, after = x.split(
            [self.first, self.width, x.shape[1] - self.first - self.width], dim=1
        )
        sound = wave.transpose(1, 2).flatten(1).to(self.device)  # [B, T * width]
        frames = functional.interpolate(self._encoder[0](sound), x.shape[-1])
        return torch.cat([before, frames.to(x.device, x.dtype), after], dim=1)
