"""Pretrained speech encoders: from pieces of sound to frames, in batches.

Enters: a folder with a model of the Hugging Face hub, and sound at its sample rate. Leaves: for
each piece the mean of some hidden states, equal but for rounding to a forward pass of it alone.

Pieces are padded to one length only where that can't change a result. Normalisation over time (the
first convolution of wav2vec2-base and its kin), stacked positional convolutions (data2vec), batch
norm before one (some HuBERT) and the attention of WavLM see the padding: equal lengths only, there.
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.parametrize import remove_parametrizations
from torch.nn.utils.rnn import pad_sequence

# Only bm.features.speech imports this file, and late: transformers takes a second to import.
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
from transformers.utils import logging as transformers_logging

from bm.core.machine import keep_freed_memory
from bm.core.messages import DataError, check_choice
from bm.features.convolutions import LocalConvolutions, has_local_frames

WAVE_MODELS = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")
"""Their input is the waveform."""
MODELS = (*WAVE_MODELS, "wav2vec2-bert", "whisper")
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SECONDS_PER_BATCH = {"cpu": 0.0, "cuda": 256.0}
"""On a CPU each piece is computed by itself: else its bits would depend on its company, and so on
how processes share the work, or where one was killed."""
MOST_PADDING = 0.1
"""Share of an input."""
RANDOM_SEED = 2036
UNUSED = {"masked_spec_embed"}
"""Weights for training only, which a checkpoint may lack."""


@dataclass(frozen=True)
class ModelInput:
    """What a model sees of a piece of sound, or of a part of it if it is longer than the model can.

    Attributes
    ----------
    values : [length, ...], the waveform or frames of a spectrogram.
    n_frames : of the output.
    seconds : of sound that the model works through.
    is_last : part of its piece.
    """

    values: Tensor
    n_frames: int
    seconds: float
    is_last: bool = True


class SpeechConfig:
    """What is known of a model without its weights.

    Raises
    ------
    DataError : it is no speech encoder that is known here.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        with _quiet():
            try:
                self.config = AutoConfig.from_pretrained(folder)
            except (OSError, ValueError, KeyError) as error:
                raise DataError(
                    f"Cannot read the model configuration in {folder}: {error}"
                ) from error
        self.kind = self.config.model_type
        try:
            check_choice(f"The model in {folder}: model_type", self.kind, MODELS)
        except ValueError as error:
            raise DataError(str(error)) from error
        self.n_layers = int(self.config.num_hidden_layers)
        self.dimension = int(self.config.hidden_size)

    @property
    def convolution_dimension(self) -> int:
        """Width of the output of the convolutions (wav2vec2 and its kin)."""
        return int(self.config.conv_dim[-1])

    @property
    def is_paddable(self) -> bool:
        """Whether a masked end leaves the output as it is."""
        if self.kind in ("wav2vec2", "hubert"):
            has_batch_norm = getattr(self.config, "conv_pos_batch_norm", False)
            return self.config.feat_extract_norm == "layer" and not has_batch_norm
        return self.kind == "wav2vec2-bert"

    def layer_indices(self, layers: Sequence[float]) -> list[int]:
        """Indices of hidden states, of layers given by index (int) or relative depth (float)."""
        indices = set()
        for layer in layers:
            is_depth = isinstance(layer, float)
            index = round(layer * self.n_layers) if is_depth else int(layer)
            if not 0 <= index <= self.n_layers or (is_depth and not 0 <= layer <= 1):
                raise ValueError(
                    f"layers={list(layers)}: the model in {self.folder} has the layers 0 (input of "
                    f"the first) to {self.n_layers}. A depth (0.5) lies between 0.0 and 1.0."
                )
            indices.add(index)
        return sorted(indices)


class SpeechModel:
    """A speech encoder, ready to run.

    Parameters
    ----------
    about : its configuration.
    layers : indices of the hidden states to average, as transformers counts them (0: input of the
        first layer); none: the output of the convolutions. Later layers are not even loaded.
    sample_rate : Hz of the sound.
    device : "cpu", "cuda", ...
    precision : "fp32"; "fp16" or "bf16" on a GPU.
    is_random : untrained weights in place of the trained ones, the same each time.
    """

    def __init__(
        self,
        about: SpeechConfig,
        layers: Sequence[int],
        sample_rate: int,
        device: str = "cpu",
        precision: str = "fp32",
        is_random: bool = False,
    ):
        self.about = about
        self.layers = list(layers)
        self.sample_rate = sample_rate
        self.device = torch.device(device)
        self.dtype = PRECISIONS[precision]
        config = copy.deepcopy(about.config)
        config.num_hidden_layers = max([1, *layers]) if layers else 0
        config.add_adapter = False
        if config.num_hidden_layers < about.n_layers:
            # The last layer is only ours: no norm that the model applies after its own last one.
            config.tie_last_hidden_states = False
        with _quiet():
            self.extractor = _load_extractor(about.folder, sample_rate)
            model = _make_random(config) if is_random else _load_model(about.folder, config)
        if about.kind in WAVE_MODELS and has_local_frames(model.feature_extractor):
            model.feature_extractor = LocalConvolutions(model.feature_extractor)
        for module in model.modules():
            for name in list(getattr(module, "parametrizations", ())):
                remove_parametrizations(module, name)  # else computed anew for each piece
        if self.device.type == "cpu":
            keep_freed_memory()
        encoder = model.encoder if about.kind == "whisper" else model
        self.model = encoder.to(self.device, self.dtype).eval()

    def encode(self, sounds: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Frames [n, F] float32 of each sound [n_samples]; best if neighbours are equally long."""
        parts = []
        for batch in self._batches(self._inputs(sounds)):
            for part, frames in zip(batch, self._run(batch), strict=True):
                parts.append(frames)
                if part.is_last:
                    yield np.concatenate(parts)
                    parts = []

    def _inputs(self, sounds: Iterable[Tensor]) -> Iterator[ModelInput]:
        """What the model's own feature extractor makes of each piece by itself."""
        for sound in sounds:
            if self.about.kind in WAVE_MODELS:
                yield self._wave(sound)
            elif self.about.kind == "whisper":
                yield from self._spectrograms(sound)
            else:
                yield self._filter_bank(sound)

    def _wave(self, sound: Tensor) -> ModelInput:
        config, n_frames = self.about.config, len(sound)
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            n_frames = (n_frames - kernel) // stride + 1
        self._check_length(sound, n_frames)
        values = self._extract(sound)["input_values"][0]
        return ModelInput(values, n_frames, len(sound) / self.sample_rate)

    def _filter_bank(self, sound: Tensor) -> ModelInput:
        n_windows = 1 + (len(sound) - 400) // 160  # of 25 ms every 10 ms
        self._check_length(sound, n_windows - 1)  # one can't be scaled by its deviation
        extracted = self._extract(sound)
        n_frames = int(extracted["attention_mask"].sum())  # a last pair may be half filled up
        values = extracted["input_features"][0, :n_frames]
        return ModelInput(values, n_frames, len(sound) / self.sample_rate)

    def _spectrograms(self, sound: Tensor) -> Iterator[ModelInput]:
        """Whisper has a fixed window (30 s, silence at the end): a longer piece takes several."""
        self._check_length(sound, len(sound))
        window = self.extractor.n_samples
        per_frame = window // self.about.config.max_source_positions
        for begin in range(0, len(sound), window):
            part = sound[begin : begin + window]
            values = self._extract(part)["input_features"][0]
            n_frames = -(-len(part) // per_frame)
            is_last = begin + window >= len(sound)
            yield ModelInput(values, n_frames, window / self.sample_rate, is_last)

    def _check_length(self, sound: Tensor, n_frames: int) -> None:
        if n_frames < 1:
            raise DataError(
                f"a piece of {len(sound)} samples ({len(sound) / self.sample_rate:.3f} s) is too "
                f"short for a single frame of {self.about.folder.name}."
            )

    def _extract(self, sound: Tensor) -> Any:
        return self.extractor(sound.numpy(), sampling_rate=self.sample_rate, return_tensors="pt")

    def _batches(self, inputs: Iterable[ModelInput]) -> Iterator[list[ModelInput]]:
        """Neighbours that may be padded to one length, within what memory can take."""
        most = SECONDS_PER_BATCH[self.device.type]
        shortest = 1 - MOST_PADDING if self.about.is_paddable else 1
        batch: list[ModelInput] = []
        for item in inputs:
            lengths = [len(other.values) for other in [*batch, item]]
            seconds = max(other.seconds for other in [*batch, item]) * len(lengths)
            if batch and (seconds > most or min(lengths) < shortest * max(lengths)):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    @torch.inference_mode()
    def _run(self, batch: Sequence[ModelInput]) -> list[np.ndarray]:
        """Frames [n_frames, F] of each input."""
        lengths = torch.tensor([len(item.values) for item in batch])
        values = pad_sequence([item.values for item in batch], batch_first=True)
        mask = None
        if lengths.min() < lengths.max():
            mask = torch.arange(values.shape[1]) < lengths[:, None]
            mask = mask.to(self.device, torch.long)
        # TF32 would give convolutions 10 bits of precision where 24 are asked for.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            outputs = self.model(
                values.to(self.device, self.dtype),
                attention_mask=mask,
                output_hidden_states=self.layers or None,
            )
        if self.layers:
            chosen = [outputs.hidden_states[layer].float() for layer in self.layers]
            frames = torch.stack(chosen).mean(dim=0)
        else:
            frames = outputs.extract_features.float()
        frames = frames.cpu()
        return [part[: item.n_frames].numpy() for part, item in zip(frames, batch, strict=True)]


def _load_extractor(folder: Path, sample_rate: int) -> Any:
    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"The model folder {folder} doesn't say how its sound is to be prepared: "
            f"preprocessor_config.json is missing or can't be read. Copy it there. ({error})"
        ) from error
    if extractor.sampling_rate != sample_rate:
        raise DataError(
            f"The model in {folder} wants sound at {extractor.sampling_rate} Hz; only models for "
            f"{sample_rate} Hz can be used."
        )
    return extractor


def _make_random(config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        return AutoModel.from_config(config, dtype=torch.float32)


def _load_model(folder: Path, config: Any) -> Any:
    try:
        model, report = AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # a broken file shows as anything from OSError to SafetensorError
        raise DataError(
            f"Cannot load the model in {folder}: {error}. Is the download complete?"
        ) from error
    missing = sorted(name for name in report["missing_keys"] if name.split(".")[-1] not in UNUSED)
    if missing:
        rest = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DataError(
            f"The weights in {folder} lack {', '.join(missing[:3])}{rest}. Are they those of the "
            "model that config.json describes?"
        )
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars, and its list of weights that are not needed."""
    level = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if had_bars:
            transformers_logging.enable_progress_bar()
