"""Speech models: the frames of a direct forward pass, and nothing heard beyond the piece."""

import inspect
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from helpers import RATE, SOUND_RATE, write_sound
from small_speech_models import (
    CONFIGS,
    N_LAYERS,
    WIDTH,
    WINDOW,
    change_weights,
    direct_states,
    make_model,
    noise,
    story,
)
from transformers import AutoModel

from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.events import cut_sounds_at_blocks
from bm.features import build_table, make_features
from bm.features.convolutions import LocalConvolutions, has_local_frames
from bm.features.speech import (
    XLSR,
    SpeechEncoder,
    Wav2VecConvolution,
    Wav2VecTransformer,
)
from bm.features.speech_models import SECONDS_PER_BATCH, SpeechConfig, SpeechModel

PADDABLE = ("wav2vec2-large", "hubert-large", "w2v-bert")
XLSR_FOLDER = XLSR.replace("/", "--")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a small model, by the name of one that is built alike."""
    root = tmp_path_factory.mktemp("models")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).exists() else make_model(root / kind, kind)

    return folder


@pytest.fixture
def batches(monkeypatch) -> list[int]:
    """Number of inputs of each forward pass from now on; the CPU takes several, as a GPU does."""
    monkeypatch.setitem(SECONDS_PER_BATCH, "cpu", 32.0)
    sizes = []
    run = SpeechModel._run

    def counted(self: SpeechModel, batch: Any) -> Any:
        sizes.append(len(batch))
        return run(self, batch)

    monkeypatch.setattr(SpeechModel, "_run", counted)
    return sizes


def frames(folder: Path, sounds: list[torch.Tensor], **options: Any) -> list[np.ndarray]:
    return list(SpeechEncoder(str(folder), **options).frames_of_many(sounds))


# Numbers


@pytest.mark.parametrize("kind", CONFIGS)
def test_frames_are_those_of_a_direct_forward_pass_of_each_piece(models, batches, kind):
    sounds = noise(32_000, 31_000, 30_001, 30_001, 16_123, 800)
    states = [direct_states(models(kind), kind, sound) for sound in sounds]
    expected_sizes = [4, 1, 1] if kind in PADDABLE else [1, 1, 2, 1, 1]
    for layers in ([0], [1, 2], [N_LAYERS]):  # the last: with the model's own last norm
        batches.clear()
        found = frames(models(kind), sounds, layers=layers)
        assert batches == ([6] if kind == "whisper" else expected_sizes)
        for sound, one, direct in zip(sounds, found, states, strict=True):
            expected = np.mean([direct[layer] for layer in layers], axis=0)
            n_heard = len(sound) / 320  # frames of 20 ms, and the ends of windows
            assert abs(len(one) - n_heard) <= 1.5
            assert one.dtype == np.float32
            assert one.std() > 0.05
            np.testing.assert_allclose(one, expected[: len(one)], atol=1e-5)


@pytest.mark.parametrize("kind", ["wav2vec2-base", "data2vec-audio", "hubert-batch-norm"])
def test_padding_would_change_what_is_not_padded(models, batches, monkeypatch, kind):
    sounds = noise(16_000, 15_000)
    alone = frames(models(kind), sounds, layers=[2])[1]
    monkeypatch.setattr(SpeechConfig, "is_paddable", True)
    padded = frames(models(kind), sounds, layers=[2])[1]
    assert batches == [1, 1, 2]
    assert np.abs(alone - padded).max() > 1e-2


def test_convolutions_in_stretches_are_those_of_transformers(models):
    for kind in ("wav2vec2-large", "wavlm-large", "data2vec-audio"):
        own = AutoModel.from_pretrained(models(kind)).feature_extractor
        ours = LocalConvolutions(own)
        assert has_local_frames(own)
        assert (ours.width, ours.hop) == (400, 320)
        for length in (400, 719, 720, 100_001):  # 1, 1, 2 and 312 frames, in four stretches
            sound = torch.stack(noise(length, length))
            with torch.inference_mode():
                torch.testing.assert_close(ours(sound), own(sound), atol=1e-5, rtol=1e-5)
    assert not has_local_frames(AutoModel.from_pretrained(models("hubert-base")).feature_extractor)


def test_longer_sound_than_whisper_hears_at_once_goes_in_parts(models):
    whole = noise(int(2.6 * WINDOW * SOUND_RATE) + 7)[0]
    parts = whole.split(WINDOW * SOUND_RATE)
    expected = np.concatenate(frames(models("whisper"), list(parts), layers=[2]))
    found = frames(models("whisper"), [whole, parts[0]], layers=[2])
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    assert [len(one) for one in found] == [int(2.6 * WINDOW * 50) + 1, WINDOW * 50]


def test_published_feature_averages_layers_14_to_18_and_loads_no_more(tmp_path, monkeypatch):
    folder = make_model(tmp_path / XLSR_FOLDER, "wav2vec2-large", num_hidden_layers=24)
    loaded = []
    load = SpeechModel.__init__
    monkeypatch.setattr(
        SpeechModel, "__init__", lambda self, *args: (load(self, *args), loaded.append(self))[0]
    )
    sound = noise(20_000)[0]
    states = direct_states(folder, "wav2vec2-large", sound)
    feature = Wav2VecTransformer(models_folder=tmp_path)
    expected = np.mean([states[layer] for layer in (14, 15, 16, 17, 18)], axis=0)
    np.testing.assert_allclose(feature.frames(sound), expected, atol=1e-5)
    assert len(loaded[0].model.encoder.layers) == 18
    assert feature.dimension == WIDTH
    convolution = Wav2VecConvolution(models_folder=tmp_path)
    np.testing.assert_allclose(convolution.frames(sound), states["convolution"], atol=1e-5)
    assert len(loaded[1].model.encoder.layers) == 0
    assert convolution.dimension == 8
    assert convolution.key != feature.key


def test_layers_are_indices_or_depths(models):
    folder = str(models("wav2vec2-large"))
    for layers, indices in (
        ([0, 3], [0, 3]), ([0.0, 1.0], [0, 3]), ([0.6, 0.65, 2], [2]), ([1], [1]), ([1.0], [3])
    ):  # fmt: skip
        assert SpeechEncoder(folder, layers=layers).key["layers"] == indices
    for wrong in ([4], [-1], [1.5], [-0.1]):
        with pytest.raises(ValueError, match=r"has the layers 0 .* to 3\. A depth"):
            frames(models("wav2vec2-large"), noise(800), layers=wrong)
    for layered in (SpeechEncoder, Wav2VecTransformer):
        arguments = {"model": folder} if layered is SpeechEncoder else {}
        with pytest.raises(ValueError, match="layers=\\[\\] leaves nothing"):
            layered(layers=[], **arguments)
    with pytest.raises(ValueError, match=r"SpeechEncoder\.model isn't set"):
        make_features(["SpeechEncoder"], {})


def test_sound_is_scaled_as_the_checkpoint_says(tmp_path):
    sound = noise(8000)[0]
    for do_normalize in (True, False):
        folder = make_model(tmp_path / str(do_normalize), "wav2vec2-large", do_normalize)
        soft, loud = frames(folder, [sound, 3 * sound + 0.1], layers=[1])
        assert np.allclose(soft, loud, atol=1e-3) == do_normalize


def test_untrained_model_needs_no_weights_and_is_the_same_each_time(models, tmp_path):
    trained = models("wav2vec2-large")
    bare = tmp_path / "bare"
    shutil.copytree(trained, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    sounds, before = noise(8000), torch.get_rng_state()
    one, again = (frames(bare, sounds, layers=[2], random=True)[0] for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert torch.equal(before, torch.get_rng_state())
    other = frames(trained, sounds, layers=[2])[0]
    assert one.shape == other.shape
    assert np.abs(one - other).mean() > 0.1
    with pytest.raises(DataError, match=r"bare lacks the weights \(model\.safetensors or"):
        frames(bare, sounds, layers=[2])


# Pieces


@pytest.mark.parametrize("kind", ["wav2vec2-large", "wav2vec2-base", "w2v-bert", "whisper"])
def test_sound_beyond_a_block_border_changes_no_bit(models, tmp_path, cache, batches, kind):
    border, start = 3.0301, 1.0
    samples, _ = soundfile.read(write_sound(tmp_path / "a.wav", 4.0))
    spoilt = samples.copy()
    first = int(np.ceil((border - start) * SOUND_RATE))
    spoilt[first:] = np.random.default_rng(5).uniform(-0.9, 0.9, len(samples) - first)
    soundfile.write(tmp_path / "b.wav", spoilt, SOUND_RATE)
    blocks = pd.DataFrame({"start": [0.0, border], "duration": [border, np.inf]})
    seen = []
    for name in ("a.wav", "b.wav"):
        sound = {"start": start, "duration": 4.0, "offset": 0.0, "kind": "sound"}
        whole = pd.DataFrame([{**sound, "filepath": str(tmp_path / name)}])
        events = cut_sounds_at_blocks(whole, blocks)
        table = build_table(SpeechEncoder(str(models(kind))), [events], [720], RATE, cache)
        seen.append(table.rows[table.timelines[0]])
    inside = np.arange(720) / RATE < border
    np.testing.assert_array_equal(seen[0][inside], seen[1][inside])
    assert np.abs(seen[0][~inside] - seen[1][~inside]).max() > 0.01
    if kind == "whisper":
        assert batches == [3, 3]  # two windows, and one: also where they share a batch
    else:
        assert batches == ([2, 2] if kind in PADDABLE else [1, 1, 1, 1])


def test_pieces_keep_their_order_and_listeners_share_them(models, tmp_path, cache, batches):
    path = write_sound(tmp_path / "story.wav", 6.0)
    events = [story(path, 0.0, 0.5, 2.5, 3.25, 5.5), story(path, 2.5, 3.25)]
    feature = SpeechEncoder(str(models("wav2vec2-base")), layers=[1])
    table = build_table(feature, events, [700, 700], RATE, cache)
    assert sum(batches) == 4
    samples, _ = soundfile.read(path, dtype="float32")
    for begin, end in ((0.0, 0.5), (0.5, 2.5), (2.5, 3.25), (3.25, 5.5)):
        piece = torch.from_numpy(samples[int(begin * SOUND_RATE) : int(end * SOUND_RATE)])
        expected = direct_states(models("wav2vec2-base"), "wav2vec2-base", piece)[1]
        middle = int((begin + end) / 2 * RATE)
        frame = int((middle / RATE - begin) * len(expected) / (end - begin))
        for timeline in table.timelines[: 2 if begin == 2.5 else 1]:
            np.testing.assert_allclose(table.rows[timeline[middle]], expected[frame], atol=1e-5)
    build_table(feature, events, [700, 700], RATE, Cache(cache.folder))
    assert sum(batches) == 4


def test_half_precision_halves_what_is_stored(models, tmp_path, cache):
    events = [story(write_sound(tmp_path / "story.wav", 3.0), 0.0, 3.0)]
    rows, sizes = [], []
    for half in (False, True):
        feature = SpeechEncoder(str(models("whisper")), half=half)
        rows.append(build_table(feature, events, [360], RATE, cache).rows)
    for file in sorted((cache.folder / "features").glob("*/frames.npy")):
        sizes.append(np.load(file).nbytes)
    assert sorted(sizes) == [150 * WIDTH * 2, 150 * WIDTH * 4]
    assert rows[1].dtype == np.float32
    np.testing.assert_array_equal(rows[1], rows[0].astype(np.float16).astype(np.float32))


def test_numbers_too_large_for_half_precision_are_an_error(models, tmp_path, cache):
    folder = shutil.copytree(models("wav2vec2-large"), tmp_path / "large")
    change_weights(folder, lambda weights: weights["feature_projection.projection.bias"].add_(1e5))
    events = [story(write_sound(tmp_path / "story.wav", 1.0), 0.0, 1.0)]
    feature = SpeechEncoder(str(folder), half=True)
    with pytest.raises(DataError, match=r"story\.wav at 0\.0 s: .* set half=false"):
        build_table(feature, events, [120], RATE, cache)
    assert not list(cache.folder.rglob("frames.npy"))


@pytest.mark.parametrize("kind", ["wav2vec2-base", "wavlm-large", "w2v-bert"])
def test_piece_without_a_single_frame_is_named(models, tmp_path, cache, kind):
    shortest = 560 if kind == "w2v-bert" else 400
    assert len(frames(models(kind), noise(shortest), layers=[1])[0]) == 1
    with pytest.raises(DataError, match=f"a piece of {shortest - 1} samples .* too short"):
        frames(models(kind), noise(shortest - 1), layers=[1])


@pytest.mark.parametrize("kind", CONFIGS)
def test_silence_has_finite_frames(models, kind):
    silent = frames(models(kind), [torch.zeros(16_000)], layers=[2])[0]
    assert np.isfinite(silent).all()
    assert np.abs(silent).max() > 0.01  # what the model makes of silence, not a zero of ours


# Arguments


def test_features_are_known_without_importing_transformers(python_env):
    program = (
        "import sys; from bm.features import make_features\n"
        "make_features(['Wav2VecTransformer', 'Wav2VecConvolution'], {})\n"
        "print('transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=python_env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_gpu_precision_is_refused_on_the_cpu(caplog):
    with pytest.raises(ValueError, match="precision=bf16 needs a GPU, but runs on the CPU"):
        Wav2VecTransformer(precision="bf16")
    with pytest.raises(ValueError, match=r"precision='fp15'.*mean 'fp16'"):
        Wav2VecTransformer(precision="fp15")
    with pytest.raises(ValueError, match="device='gpu'"):
        Wav2VecTransformer(device="gpu")
    if not torch.cuda.is_available():
        with caplog.at_level(logging.WARNING):
            assert Wav2VecTransformer(device="cuda:1").device == "cpu"
        assert "Wav2VecTransformer: device=cuda:1, but there is no GPU" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_gpu_gives_what_the_cpu_gives(models, kind, precision):
    sounds = noise(32_000, 31_000, 30_001, 30_001, 16_123)
    on_cpu = frames(models(kind), sounds, layers=[1, 2])
    on_gpu = frames(models(kind), sounds, layers=[1, 2], device="cuda", precision=precision)
    most = {"fp32": 1e-4, "fp16": 0.05, "bf16": 0.3}[precision]
    for one, other in zip(on_cpu, on_gpu, strict=True):
        np.testing.assert_allclose(one, other, atol=most)


def test_every_argument_that_changes_the_frames_names_them_in_the_cache(models):
    folder = str(models("wav2vec2-large"))
    other = {
        "model": str(models("hubert-large")),
        "layers": [1],
        "random": True,
        "precision": "bf16",
    }
    feature = SpeechEncoder(folder)
    for name, value in other.items():
        if name == "precision":  # needs a GPU to be given
            changed = SpeechEncoder(folder)
            changed.precision = value
        else:
            changed = SpeechEncoder(**{"model": folder, name: value})
        assert changed.key != feature.key
    without = {"device", "models_folder", "revision", "half"}  # half: in the key of every table
    assert set(inspect.signature(SpeechEncoder).parameters) == set(other) | without
