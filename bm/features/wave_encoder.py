"""A wav2vec 2.0 model as a module of the training graph.

Enters: sound of segments [B, n_samples]. Leaves: frames [B, F, n_frames], 50 a second.
"""

import julius
import torch
from torch import Tensor, nn

from bm.features.speech_models import SpeechModel

SMALLEST_VARIANCE = 1e-7
"""Added, as by the feature extractor of transformers."""


class WaveEncoder(nn.Module):
    """Frames of a speech model of a waveform, with gradients down to it; its weights are fixed.

    Parameters
    ----------
    speech : a model that hears waveforms.
    input_rate : Hz of the sound that comes.
    """

    def __init__(self, speech: SpeechModel, input_rate: int):
        super().__init__()
        self.model = speech.model.requires_grad_(False)
        self.layers = speech.layers
        self.dtype = speech.dtype
        self.is_normalized = bool(speech.extractor.do_normalize)
        self.resample = julius.ResampleFrac(input_rate, speech.sample_rate).to(speech.device)

    def forward(self, wave: Tensor) -> Tensor:
        """[B, n_samples] at `input_rate` to [B, F, n_frames]."""
        wave = self.resample(wave.float())
        if self.is_normalized:
            variance, mean = torch.var_mean(wave, dim=1, correction=0, keepdim=True)
            wave = (wave - mean) / (variance + SMALLEST_VARIANCE).sqrt()
        hidden = self.model(wave.to(self.dtype), output_hidden_states=True).hidden_states
        chosen = torch.stack([hidden[layer].float() for layer in self.layers])
        return chosen.mean(dim=0).transpose(1, 2)
