"""The sound of each segment itself, for a speech model that runs in the training graph.

Enters: pieces of sound, cut into one row of samples for each sample of the brain signal. Leaves:
with the encoder, frames of wav2vec 2.0 that has heard the segment and nothing around it, where
`Wav2VecTransformer` has heard its whole block.

References
----------
.. [1] Conneau et al. 2020, XLSR-53, doi:10.48550/arXiv.2006.13979
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bm.core.messages import DataError
from bm.features.base import register
from bm.features.speech import MODELS_FOLDER, XLSR, XLSR_REVISION, PretrainedSpeech, require_layers

if TYPE_CHECKING:
    from bm.features.wave_encoder import WaveEncoder

MODEL_RATE = 16_000
"""Hz, of the sound that the encoder hears."""


@register
class Wav2VecChunk(PretrainedSpeech):
    """Sound of the segment, which wav2vec 2.0 XLSR-53 [1]_ encodes during training: F = 1024.

    The table holds the waveform, one row of samples per sample of the brain signal, at the lowest
    rate from 16 kHz up of which a row is a whole number of samples. The encoder isn't trained, and
    isn't part of checkpoints.

    Parameters
    ----------
    layers, device, random, precision, half, models_folder : see `PretrainedSpeech`; `half` is
        about the waveform.
    sample_rate : Hz of the brain signal.
    """

    normalizable = False

    def __init__(
        self,
        layers: Sequence[float] = (14, 15, 16, 17, 18),
        device: str = "cpu",
        random: bool = False,
        precision: str = "fp32",
        half: bool = False,
        sample_rate: float = 120.0,
        models_folder: str | Path = MODELS_FOLDER,
    ):
        require_layers(self, layers)
        super().__init__(
            XLSR, XLSR_REVISION, layers, device, random, precision, half, models_folder
        )
        self.frame_rate = sample_rate
        rate = Fraction(sample_rate).limit_denominator(1000)
        step = rate.denominator
        self._width = step * math.ceil(MODEL_RATE / (rate * step))
        self.input_rate = int(self._width * rate)

    @property
    def dimension(self) -> int:  # type: ignore[override]  # follows from the rate
        """Samples per row of the table."""
        return self._width

    @property
    def encoded_dimension(self) -> int:
        """Width F of the encoder's layers."""
        return self.about.dimension

    @property
    def key(self) -> dict[str, Any]:
        """What decides the waveform: not the encoder."""
        return {"input_rate": self.input_rate, "width": self._width}

    def frames(self, sound: torch.Tensor) -> np.ndarray:
        """[n_samples] to [n_frames, width], the last filled up with silence.

        Raises
        ------
        DataError : there is no sound.
        """
        if not len(sound):
            raise DataError("a piece of sound without a single sample.")
        missing = -len(sound) % self._width
        return np.pad(sound.numpy(), (0, missing)).reshape(-1, self._width)

    def frames_of_many(self, sounds: Any) -> Any:
        """As `frames`: no model is needed."""
        return map(self.frames, sounds)

    def encoder(self) -> "WaveEncoder":
        """The speech model: from the waveform [B, n_samples] to frames [B, F, n_frames]."""
        from bm.features.wave_encoder import WaveEncoder  # late: imports transformers

        return WaveEncoder(self.load_model(MODEL_RATE), self.input_rate)
