"""Real weights on real speech: what is said is found again in another rendering of it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import resample_poly
from whisper_weights import save_whisper

from bm.features import SoundFeature
from bm.features.mel import MelSpectrum
from bm.features.speech import SpeechEncoder

RATE = 16_000


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("models") / "whisper-tiny.en")


@pytest.fixture(scope="module")
def utterances(shared_data: Path) -> list[np.ndarray]:
    """Sentences read by a volunteer."""
    files = sorted((shared_data / "librivox").glob("*.wav"))
    assert len(files) == 5
    return [soundfile.read(file, dtype="float32")[0] for file in files]


def telephone(samples: np.ndarray) -> np.ndarray:
    """Through 8 kHz and back."""
    return resample_poly(resample_poly(samples, 1, 2), 2, 1)[: len(samples)].astype(np.float32)


def noisy(samples: np.ndarray) -> np.ndarray:
    """With white noise as loud as the speech."""
    noise = np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    return samples + samples.std() * noise


def faster(samples: np.ndarray) -> np.ndarray:
    """A tenth faster, and higher."""
    return resample_poly(samples, 10, 11).astype(np.float32)


def windows(
    feature: SoundFeature, sounds: list[np.ndarray], utterances: list[np.ndarray]
) -> np.ndarray:
    """[n, F] mean frame of each second of the utterances, without the mean over all."""
    frames = feature.frames_of_many(map(torch.from_numpy, sounds))
    rows = [
        part.mean(axis=0)
        for own, samples in zip(frames, utterances, strict=True)
        for part in np.array_split(own, len(samples) // RATE)
    ]
    return np.stack(rows) - np.mean(rows, axis=0)


def found_again(
    feature: SoundFeature, utterances: list[np.ndarray], renderings: list[np.ndarray]
) -> float:
    """Share of the seconds of another rendering whose most similar second is the same one."""
    here, there = (windows(feature, sounds, utterances) for sounds in (utterances, renderings))
    here, there = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (here, there))
    return float(((there @ here.T).argmax(axis=1) == np.arange(len(here))).mean())


@pytest.mark.slow
def test_whisper_finds_speech_again_through_a_telephone_and_in_noise(whisper, utterances):
    trained = SpeechEncoder(str(whisper), layers=[3])
    untrained = SpeechEncoder(str(whisper), layers=[3], random=True)
    through = [telephone(samples) for samples in utterances]
    spoilt = [noisy(samples) for samples in through]
    quick = [faster(samples) for samples in spoilt]
    assert found_again(trained, utterances, through) == 1.0
    assert found_again(trained, utterances, spoilt) >= 0.9
    assert found_again(trained, utterances, quick) >= 0.9
    for other in (untrained, MelSpectrum(n_mels=40)):
        assert found_again(other, utterances, quick) < 0.5
