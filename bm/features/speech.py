"""Representations of speech in pretrained encoders: the targets that decode best.

Enters: pieces of sound as cut at block borders, each by itself the whole context of the model.
Leaves: frames, 50 a second for all models known here.

References
----------
.. [1] Baevski et al. 2020, wav2vec 2.0, doi:10.48550/arXiv.2006.11477
.. [2] Conneau et al. 2020, XLSR-53, doi:10.48550/arXiv.2006.13979
.. [3] Défossez et al. 2023, doi:10.1038/s42256-023-00714-5
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bm.core.messages import check_choice
from bm.features.base import SoundFeature, register
from bm.features.weights import find_model, model_identity

if TYPE_CHECKING:
    from bm.features.speech_models import SpeechConfig, SpeechModel

logger = logging.getLogger(__name__)

XLSR = "facebook/wav2vec2-large-xlsr-53"
XLSR_REVISION = "c3f9d884181a224a6ac87bf8885c84d1cff3384f"
MODELS_FOLDER = "./features_models"


class PretrainedSpeech(SoundFeature):
    """What features from a pretrained speech encoder have in common.

    Parameters
    ----------
    model : name on the Hugging Face hub, or a local folder.
    revision : its commit on the hub; None: the latest that is on this machine, else on the hub.
    layers : hidden states to average, by index (0 is the input of the first layer) or, with a
        decimal point, by relative depth (0.5: half way up); none: the output of the convolutions.
    device : "cpu", "cuda" or "cuda:N"; the CPU is used, with a warning, where there is no GPU.
    random : untrained weights, to tell what training gives from what the architecture gives.
    precision : "fp32"; "fp16" or "bf16" on a GPU.
    half : keep the frames in half precision, in half the space on disk.
    models_folder : where models were copied to (see `bm.features.weights.find_model`).
    """

    def __init__(
        self,
        model: str,
        revision: str | None,
        layers: Sequence[float],
        device: str,
        random: bool,
        precision: str,
        half: bool,
        models_folder: str | Path,
    ):
        check_choice("device", device.split(":")[0], ("cpu", "cuda"))
        check_choice("precision", precision, ("fp32", "fp16", "bf16"))
        if device != "cpu" and not torch.cuda.is_available():
            logger.warning("%s: device=%s, but there is no GPU: using the CPU.", self.name, device)
            device = "cpu"
        if precision != "fp32" and device == "cpu":
            raise ValueError(
                f"{self.name}: precision={precision} needs a GPU, but runs on the CPU. Choose "
                "precision=fp32, or device=cuda on a machine with a GPU."
            )
        self.model = model
        self.revision = revision
        self.layers = tuple(layers)
        self.device = device
        self.random = random
        self.precision = precision
        self.half = half
        self.models_folder = models_folder

    @cached_property
    def folder(self) -> Path:
        """Where the model's files are.

        Raises
        ------
        DataError : not on this machine, and they can't be downloaded.
        """
        return find_model(self.model, self.models_folder, self.revision, not self.random)

    @cached_property
    def about(self) -> "SpeechConfig":
        """Configuration of the model."""
        # transformers, which this imports, takes a second that only these features should cost.
        from bm.features.speech_models import SpeechConfig

        return SpeechConfig(self.folder)

    @property
    def dimension(self) -> int:  # type: ignore[override]  # known once the model is found
        """Width F of the layers."""
        return self.about.dimension if self.layers else self.about.convolution_dimension

    @cached_property
    def key(self) -> dict[str, Any]:
        """What the model's files hold, whatever their name, and what is done with them."""
        return {
            "model": model_identity(self.folder, not self.random),
            "layers": self.about.layer_indices(self.layers),
            "random": self.random,
            "precision": self.precision,
        }

    def frames(self, sound: torch.Tensor) -> np.ndarray:
        """[n_samples] to [n_frames, F]. It loads the model: prefer `frames_of_many`."""
        return next(self.frames_of_many([sound]))

    def frames_of_many(self, sounds: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """[n_samples] each to [n_frames, F] each; the model is in memory only meanwhile."""
        yield from self.load_model(self.input_rate).encode(sounds)

    def load_model(self, sample_rate: int) -> "SpeechModel":
        """The model, for sound at `sample_rate` Hz."""
        from bm.features.speech_models import SpeechModel  # late, as above

        return SpeechModel(
            self.about,
            self.about.layer_indices(self.layers),
            sample_rate,
            self.device,
            self.precision,
            self.random,
        )


@register
class Wav2VecTransformer(PretrainedSpeech):
    """Mean of layers of wav2vec 2.0 XLSR-53 [2]_, the target of [3]_: F = 1024.

    Parameters
    ----------
    layers, device, random, precision, half, models_folder : see `PretrainedSpeech`.
    """

    def __init__(
        self,
        layers: Sequence[float] = (14, 15, 16, 17, 18),
        device: str = "cpu",
        random: bool = False,
        precision: str = "fp32",
        half: bool = False,
        models_folder: str | Path = MODELS_FOLDER,
    ):
        require_layers(self, layers)
        super().__init__(
            XLSR, XLSR_REVISION, layers, device, random, precision, half, models_folder
        )


@register
class Wav2VecConvolution(PretrainedSpeech):
    """Output of the convolutions of wav2vec 2.0 XLSR-53 [2]_ after their layer norm: F = 512.

    It hears 25 ms at a time, and no context.

    Parameters
    ----------
    device, random, precision, half, models_folder : see `PretrainedSpeech`.
    """

    def __init__(
        self,
        device: str = "cpu",
        random: bool = False,
        precision: str = "fp32",
        half: bool = False,
        models_folder: str | Path = MODELS_FOLDER,
    ):
        super().__init__(XLSR, XLSR_REVISION, (), device, random, precision, half, models_folder)


@register
class SpeechEncoder(PretrainedSpeech):
    """Mean of layers of any wav2vec 2.0, HuBERT, WavLM, data2vec, w2v-BERT 2.0 or Whisper encoder.

    Parameters
    ----------
    model, revision, device, random, precision, half, models_folder : see `PretrainedSpeech`.
    layers : see there; the default takes the depth that [3]_ found to work, 14 to 18 of 24.
    """

    def __init__(
        self,
        model: str | None = None,
        revision: str | None = None,
        layers: Sequence[float] = (0.6, 0.65, 0.7, 0.75),
        device: str = "cpu",
        random: bool = False,
        precision: str = "fp32",
        half: bool = False,
        models_folder: str | Path = MODELS_FOLDER,
    ):
        if not model:
            raise ValueError(
                "dset.features_params.SpeechEncoder.model isn't set. Name a model of the Hugging "
                "Face hub (microsoft/wavlm-large) or a local folder."
            )
        require_layers(self, layers)
        super().__init__(model, revision, layers, device, random, precision, half, models_folder)


def require_layers(feature: PretrainedSpeech, layers: Sequence[float]) -> None:
    """Raise a ValueError if there are none."""
    if not layers:
        raise ValueError(f"{feature.name}: layers=[] leaves nothing to average. Name at least one.")
