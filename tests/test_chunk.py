"""The sound of segments, encoded in the training graph: what wav2vec hears, and what is trained."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import SmallRecording, tell_story, write_sound
from small_speech_models import WIDTH, direct_states, make_model, story

import bm.build
from bm.build import build_solver
from bm.build_models import build_models
from bm.config import Config, from_dict
from bm.features import build_table, make_features
from bm.features.chunk import Wav2VecChunk
from bm.features.speech import XLSR
from bm.models import SegmentSound

LAYERS = (14, 15, 16, 17, 18)
SMALL = {
    "hidden": {"meg": 6}, "depth": 2, "initial_linear": 5, "merger": True, "merger_channels": 5,
    "merger_pos_dim": 8, "complex_out": True, "subject_dim": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of models, with a narrow XLSR-53."""
    root = tmp_path_factory.mktemp("models")
    make_model(root / XLSR.replace("/", "--"), "wav2vec2-large", num_hidden_layers=24)
    return root


def encoded(feature: Wav2VecChunk, sound: np.ndarray, n_times: int) -> np.ndarray:
    """[T, F] of the start of a sound, by the module of the training graph."""
    rows = torch.from_numpy(feature.frames(torch.from_numpy(sound)))[:n_times]
    encode = SegmentSound(feature.encoder(), 0, feature.dimension, feature.device)
    return encode(rows.T[None])[0].T.numpy()


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal(n_samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("sample_rate", "width", "input_rate"),
    [(100.0, 160, 16_000), (120.0, 134, 16_080), (60.0, 267, 16_020), (62.5, 256, 16_000)],
)
def test_rows_hold_whole_samples(sample_rate, width, input_rate):
    feature = Wav2VecChunk(sample_rate=sample_rate)
    assert (feature.dimension, feature.input_rate) == (width, input_rate)
    assert feature.frames(torch.ones(2 * width + 1)).sum(axis=1).tolist() == [width, width, 1]


def test_neighbouring_samples_of_a_recording_see_the_sound_without_a_gap(tmp_path, cache):
    path = write_sound(tmp_path / "story.wav", 4.0)
    samples, _ = soundfile.read(path, dtype="float32")
    (feature,) = make_features(["Wav2VecChunk"], {}, sample_rate=100.0)
    for bounds in ((0.0, 4.0), (0.0, 1.234, 4.0)):  # the second cut falls between two rows
        events = story(path, *bounds)
        events["start"] += 1.0037
        table = build_table(feature, [events], [600], 100.0, cache)
        begin, end = bounds[-2:]
        seen = np.arange(600)[(np.arange(600) / 100 >= 1.0037 + begin)]
        heard = table.rows[table.timelines[0][seen]].reshape(-1)
        whole = samples[round(begin * 16_000) : round(end * 16_000)]
        n = min(len(whole), len(heard)) - 160
        np.testing.assert_array_equal(heard[:n], whole[:n])


def test_frames_are_those_of_the_segment_alone(folder):
    feature = Wav2VecChunk(sample_rate=100.0, models_folder=folder)
    sound = noise(32_000)
    states = direct_states(
        folder / XLSR.replace("/", "--"), "wav2vec2-large", torch.from_numpy(sound[:24_000])
    )
    expected = np.mean([states[layer] for layer in LAYERS], axis=0)
    frame = np.arange(150) * len(expected) // 150
    found = encoded(feature, sound, 150)
    assert found.shape == (150, WIDTH)
    np.testing.assert_allclose(found, expected[frame], atol=1e-5)
    spoilt = np.concatenate([sound[:24_000], noise(8000, seed=1)])
    np.testing.assert_array_equal(encoded(feature, spoilt, 150), found)


def test_another_rate_of_the_brain_signal_hardly_changes_the_frames(folder):
    time = np.arange(48_000) / 16_000
    tones = sum(np.sin(2 * np.pi * f * time * (1 + 0.1 * time)) for f in (210, 470, 1300))
    frames = []
    for sample_rate in (100.0, 120.0):
        feature = Wav2VecChunk(sample_rate=sample_rate, models_folder=folder)
        n = round(48_000 * feature.input_rate / 16_000)
        resampled = np.interp(np.arange(n) / feature.input_rate, time, tones).astype(np.float32)
        frames.append(
            encoded(feature, resampled, round(3 * sample_rate))[:: round(sample_rate / 20)]
        )
    middle = slice(5, 55)
    error = np.abs(frames[0][middle] - frames[1][middle]).mean()
    assert error < 0.1 * np.abs(np.diff(frames[0], axis=0)).mean()


def test_untrained_encoder_needs_no_weights(folder, tmp_path):
    bare = tmp_path / "models"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    sound = noise(16_000)
    one, again = (
        encoded(Wav2VecChunk(sample_rate=100.0, random=True, models_folder=bare), sound, 100)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, again)
    trained = encoded(Wav2VecChunk(sample_rate=100.0, models_folder=folder), sound, 100)
    assert np.abs(one - trained).mean() > 0.1


def test_other_columns_stay_beside_it_and_deep_mel_goes_on_top(folder):
    chunk = Wav2VecChunk(sample_rate=100.0, models_folder=folder)
    mel, pulse = make_features(["MelSpectrum", "WordPulse"], {"MelSpectrum": {"n_mels": 7}})
    config = from_dict({"simpleconv": SMALL})
    n_columns = 7 + 160 + 1
    models = build_models(config, 4, n_columns, 1, [mel, chunk, pulse])
    x = torch.randn(2, n_columns, 100)
    y = models["features"](x)
    assert y.shape == (2, 7 + WIDTH + 1, 100)
    assert torch.equal(y[:, :7], x[:, :7])
    assert torch.equal(y[:, -1], x[:, -1])
    sound = x[1, 7:-1].T.flatten().numpy()
    np.testing.assert_allclose(y[1, 7:-1].T.numpy(), encoded(chunk, sound, 100), atol=1e-5)
    params = {"n_hidden_channels": 4, "n_hidden_layers": 2, "n_out_channels": 5}
    deep = {"feature_model_name": "deep_mel", "feature_model_params": params}
    models = build_models(from_dict({"simpleconv": SMALL, **deep}), 4, n_columns, 1, [mel, chunk])
    assert models["features"][0].first == 7


def test_training_matches_what_the_encoder_hears_and_leaves_it_alone(
    folder, cache, tmp_path, monkeypatch
):
    recording = SmallRecording(cache, tell_story(tmp_path), "r0")
    monkeypatch.setattr(bm.build, "build_recordings", lambda config: [recording])
    solver = build_solver(experiment(folder, cache.folder))
    (history,) = solver.run()
    assert np.isfinite(history["train"]["loss"])
    names = list(solver.models.state_dict())
    assert names
    assert not [name for name in names if name.startswith("features")]  # 1.2 GB each, if it were
    batch = solver.splits.datasets["train"].gather(torch.arange(2))
    target = solver.target(batch).values
    assert target.shape == (2, WIDTH, 361)
    assert target.std(dim=2).mean() > 0.01
    sound = batch.features[1].T.flatten().numpy()
    feature = Wav2VecChunk(models_folder=folder)
    np.testing.assert_allclose(target[1].T.numpy(), encoded(feature, sound, 361), atol=1e-4)


def experiment(folder: Path, cache: Path) -> Config:
    """One batch of training at 120 Hz, the published rate."""
    dset = {"features": ["Wav2VecChunk"], "event_mask": True}
    optim = {"loss": "clip", "epochs": 1, "batch_size": 4, "max_batches": 1}
    return from_dict(
        {
            "device": "cpu", "cache": str(cache), "features_models": str(folder),
            "dset": dset, "optim": optim, "simpleconv": SMALL, "test": {"wer_recordings": 0},
        }
    )  # fmt: skip
