"""Small untrained speech models of each architecture, in folders like those of the hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.utils import logging as transformers_logging

N_LAYERS = 3
WIDTH = 16
WINDOW = 2  # seconds that the Whisper below hears at once

SIZE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embedding_groups": 2,
}
WAVE = {**SIZE, "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8}
STABLE = {**WAVE, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
BATCH_NORM = {**WAVE, "feat_extract_norm": "layer", "conv_pos_batch_norm": True}
CONFIGS = {
    "wav2vec2-base": Wav2Vec2Config(**WAVE, feat_extract_norm="group"),
    "wav2vec2-large": Wav2Vec2Config(**STABLE),
    "hubert-base": HubertConfig(**WAVE, feat_extract_norm="group"),
    "hubert-large": HubertConfig(**STABLE),
    "hubert-batch-norm": HubertConfig(**BATCH_NORM),
    "wavlm-base": WavLMConfig(**WAVE, feat_extract_norm="group"),
    "wavlm-large": WavLMConfig(**STABLE),
    "data2vec-audio": Data2VecAudioConfig(
        **{**WAVE, "num_conv_pos_embeddings": 2}, conv_pos_kernel_size=5
    ),
    "w2v-bert": Wav2Vec2BertConfig(**SIZE),
    "whisper": WhisperConfig(
        d_model=WIDTH, encoder_layers=N_LAYERS, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=20,
        max_source_positions=50 * WINDOW, max_target_positions=10,
        vocab_size=8, pad_token_id=1, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    ),
}  # fmt: skip
"""By the name of a model that is built alike."""


def make_model(folder: Path, kind: str, do_normalize: bool = True, **changes: Any) -> Path:
    """Save a model to a folder; `changes` go to its configuration."""
    config = CONFIGS[kind].__class__.from_dict({**CONFIGS[kind].to_dict(), **changes})
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModel.from_config(config)
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if values.ndim == 1 and values.is_floating_point() and "running_var" not in name:
                values.data += 0.2 * torch.randn_like(values)  # trained biases aren't zero
    if kind == "whisper":
        extractor = WhisperFeatureExtractor(feature_size=20, chunk_length=WINDOW)
    elif kind == "w2v-bert":
        extractor = SeamlessM4TFeatureExtractor(padding_value=1)
    else:
        extractor = Wav2Vec2FeatureExtractor(do_normalize=do_normalize)
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Rewrite the weights of a model after `change` was made to them, by name."""
    model = AutoModel.from_pretrained(folder)
    weights = model.state_dict()
    change(weights)
    model.save_pretrained(folder, state_dict=weights)


def direct_states(folder: Path, kind: str, sound: torch.Tensor) -> dict[Any, np.ndarray]:
    """[T, F] hidden states by index, and the "convolution", of one piece by plain transformers."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(sound.numpy(), sampling_rate=16_000, return_tensors="pt")
    if kind == "whisper":
        model = model.get_encoder()
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
    states = {index: state[0].numpy() for index, state in enumerate(outputs.hidden_states)}
    if getattr(outputs, "extract_features", None) is not None:
        states["convolution"] = outputs.extract_features[0].numpy()
    return states


def noise(*lengths: int, seed: int = 0) -> list[torch.Tensor]:
    """Sounds of so many samples."""
    generator = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(length, generator=generator) for length in lengths]


def story(path: Path, *bounds: float) -> pd.DataFrame:
    """Sound events of pieces of a file, between neighbouring `bounds` in seconds."""
    rows = [
        {"kind": "sound", "start": a, "duration": b - a, "offset": a, "filepath": str(path)}
        for a, b in zip(bounds, bounds[1:], strict=False)
    ]
    return pd.DataFrame(rows)
