"""Frames of wav2vec2-large, beside transformers' whole model on one piece of sound at a time.

Options:
  n_pieces=12       of sound: sentences put together to at least 6 s, as blocks are
  hidden_size=1024  n_layers=24  n_heads=16   of the model, which has random weights
  layers=[14,15,16,17,18]   hidden states that are averaged
  device=cpu
  precision=fp32    of bm: fp16 or bf16 on a GPU
  n_threads=0       of torch; 0: all cores
  repeats=5

Unit: seconds of sound per second, from samples to frames; models are loaded before, each in a
process of its own. "bm, plain convolutions" shows what `bm.features.convolutions` brings. The row
"difference" holds the largest one between the frames of bm and of the reference. Rows of unit "GB"
hold the peak memory of these processes (on a GPU: of the GPU), model and all included.
"""

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor

from bm.core.machine import n_cores
from bm.features.speech_models import SpeechConfig, SpeechModel
from scripts.benchmarks.parts import memory
from scripts.benchmarks.parts.measure import Row, in_turn, rows_of, seconds

SAMPLE_RATE = 16_000
SHORTEST = 6.0
SENTENCE = (1.5, 5.0)
PLAIN, OURS, HALFWAY = "plain", "bm", "bm, plain convolutions"

Encode = Callable[[Sequence[Tensor]], list[np.ndarray]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Settings:
    """See above."""

    n_pieces: int = 12
    hidden_size: int = 1024
    n_layers: int = 24
    n_heads: int = 16
    layers: list[int] = field(default_factory=lambda: [14, 15, 16, 17, 18])
    device: str = "cpu"
    precision: str = "fp32"
    n_threads: int = 0
    repeats: int = 5


def run(settings: Settings) -> list[Row]:
    """Measure speed side by side, each case in a process of its own, and the memory of each."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = save_model(Path(name), settings)
        cases = {
            kind: stack.enter_context(_process(kind, folder, settings))
            for kind in (PLAIN, HALFWAY, OURS)
        }
        work = {kind: partial(_in, process, speed) for kind, process in cases.items()}
        rows = rows_of("features", "s/s", in_turn(work, settings.repeats), PLAIN)
        peaks = {kind: [_in(cases[kind], peak)] for kind in (PLAIN, OURS)}
        difference = largest_difference(*(_in(cases[kind], frames) for kind in (PLAIN, OURS)))
    rows += rows_of("features", "GB", peaks, PLAIN, less_is_better=True)
    return [*rows, *rows_of("features", "difference", {OURS: [difference]})]


def make_pieces(n_pieces: int) -> list[Tensor]:
    """Noise, as long as blocks are: what is said makes no difference to the time."""
    generator = np.random.default_rng(0)
    pieces = []
    for _ in range(n_pieces):
        duration = 0.0
        while duration < SHORTEST:
            duration += generator.uniform(*SENTENCE)
        samples = 0.1 * generator.standard_normal(round(duration * SAMPLE_RATE))
        pieces.append(torch.from_numpy(samples.astype(np.float32)))
    return pieces


def save_model(folder: Path, settings: Settings) -> Path:
    """The architecture of wav2vec2-large-xlsr-53, untrained, as a folder of the hub."""
    config = Wav2Vec2Config(
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.n_layers,
        num_attention_heads=settings.n_heads,
        intermediate_size=4 * settings.hidden_size,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
    )
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def load(kind: str, folder: Path, settings: Settings) -> Encode:
    """A model, ready to turn pieces into frames [n, F] each."""
    if kind == PLAIN:
        return load_plain(folder, settings)
    about = SpeechConfig(folder)
    model = SpeechModel(about, settings.layers, SAMPLE_RATE, settings.device, settings.precision)
    if kind == HALFWAY:
        plain = AutoModel.from_pretrained(folder).feature_extractor
        model.model.feature_extractor = plain.to(model.device, model.dtype).eval()
    # The longest first, as `bm.features.extract` asks for them.
    return lambda pieces: list(model.encode(sorted(pieces, key=len, reverse=True)))


def load_plain(folder: Path, settings: Settings) -> Encode:
    """What one would write with transformers: all of the model, a piece at a time."""
    model = AutoModel.from_pretrained(folder).to(settings.device).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)

    @torch.inference_mode()
    def encode(piece: Tensor) -> np.ndarray:
        inputs = extractor(piece.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        outputs = model(**inputs.to(settings.device), output_hidden_states=True)
        chosen = torch.stack([outputs.hidden_states[layer] for layer in settings.layers])
        found: np.ndarray = chosen.mean(dim=0)[0].cpu().numpy()
        return found

    return lambda pieces: [encode(piece) for piece in sorted(pieces, key=len, reverse=True)]


def largest_difference(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """Between the frames of the same pieces."""
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class Case:
    """What a process measures: a loaded model and its work."""

    encode: Encode
    pieces: Sequence[Tensor]
    settings: Settings


_case: list[Case] = []
"""Of this process, once prepared."""


def prepare(kind: str, folder: Path, settings: Settings) -> None:
    """Load the model in a fresh process."""
    torch.set_num_threads(settings.n_threads or n_cores())
    _case.append(Case(load(kind, folder, settings), make_pieces(settings.n_pieces), settings))


def frames() -> list[np.ndarray]:
    """Frames [n, F] of each piece."""
    return _case[0].encode(_case[0].pieces)


def speed() -> float:
    """Seconds of sound per second."""
    n_seconds = sum(map(len, _case[0].pieces)) / SAMPLE_RATE
    return n_seconds / seconds(frames, _case[0].settings.device)


def peak() -> float:
    """Most memory in GB so far; on a GPU, of the GPU."""
    if _case[0].settings.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 1e9
    return memory.peak() / 1e9


def _process(kind: str, folder: Path, settings: Settings) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), prepare, (kind, folder, settings))


def _in(process: ProcessPoolExecutor, work: Callable[[], Result]) -> Result:
    return process.submit(work).result()
