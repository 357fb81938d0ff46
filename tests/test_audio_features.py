"""Pitch, envelope and speech activity: of sounds of which they are known, and of real speech."""

import inspect
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scipy.signal import chirp, resample_poly
from small_events import RATE

import bm.features.audio
from bm.core.messages import DataError
from bm.features import SoundFeature, build_table, make_features, registry
from bm.features.audio import Envelope, Pitch, SpeechActivity

SOUND_RATE = 16_000
FEATURES = [Pitch, Envelope, SpeechActivity]


def course(feature: SoundFeature, samples: np.ndarray) -> np.ndarray:
    """[n_frames] what a feature of one column makes of samples at 16 kHz."""
    frames = feature.frames(torch.tensor(samples, dtype=torch.float32))
    assert frames.dtype == np.float32
    assert frames.shape == (-(-len(samples) // 160), 1)
    assert np.isfinite(frames).all()
    return frames[:, 0]


def seconds(n: float) -> np.ndarray:
    """Times of the samples of so many seconds."""
    return np.arange(round(n * SOUND_RATE)) / SOUND_RATE


def voice(f0: float, n: float = 1.0) -> np.ndarray:
    """Harmonics that get weaker, as in a vowel."""
    return sum(0.3 * 0.7**k * np.sin(2 * np.pi * k * f0 * seconds(n) + k) for k in range(1, 12))


def noise(n: float, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(0).standard_normal(round(n * SOUND_RATE))


@pytest.fixture
def speech(shared_data) -> np.ndarray:
    """A sentence of real read speech, 7.1 s."""
    path = shared_data / "librivox" / "sense_and_sensibility_01_austen_64kb-0870.wav"
    samples, rate = soundfile.read(path)
    assert rate == SOUND_RATE
    return samples


# All of them


def test_audio_features_go_by_their_names_and_arguments():
    assert {kind.__name__ for kind in FEATURES} <= set(registry)
    pitch = make_features(["Pitch"], {"Pitch": {"min_f0": 100, "max_f0": 350}})[0]
    assert pitch.key == Pitch().key  # the published parameters
    for kind in FEATURES:
        arguments = set(inspect.signature(kind).parameters)
        assert arguments == set(kind().key) - {"librosa"}  # all of them name the cache
        for name, default in inspect.signature(kind).parameters.items():
            assert kind(**{name: default.default * 0.9}).key != kind().key


@pytest.mark.parametrize("feature", [Pitch(), Envelope(), SpeechActivity()])
def test_piece_shorter_than_a_frame_is_an_error(feature):
    with pytest.raises(DataError, match="a piece of 100 samples is shorter than"):
        feature.frames(torch.zeros(100))


@pytest.mark.parametrize("feature", [Pitch(), Envelope(), SpeechActivity()])
def test_silence_is_zero_and_said(feature, caplog):
    assert not course(feature, np.zeros(SOUND_RATE)).any()
    assert feature.default == 0
    assert f"{feature.name}: " in caplog.text
    assert "1.00 s" in caplog.text
    assert "silent" in caplog.text


@pytest.mark.parametrize(
    ("rate", "n_channels", "suffix", "subtype"),
    [
        (SOUND_RATE, 1, "wav", "PCM_U8"),
        (SOUND_RATE, 2, "wav", "PCM_16"),
        (48_000, 2, "wav", "PCM_24"),
        (44_100, 1, "flac", "PCM_16"),
        (48_000, 1, "mp3", None),
        (SOUND_RATE, 1, "ogg", None),
    ],
)
def test_any_sound_file_gives_the_same(tmp_path, cache, rate, n_channels, suffix, subtype):
    glide = 0.3 * chirp(seconds(3), 150, 3, 250) * (1 + np.sin(2 * np.pi * 2 * seconds(3)))
    samples = resample_poly(glide, rate // 100, SOUND_RATE // 100)
    path = tmp_path / f"sound.{suffix}"
    soundfile.write(path, np.stack([samples] * n_channels, axis=1), rate, subtype=subtype)
    events = pd.DataFrame({"kind": ["sound"], "start": 0.0, "duration": 3.0, "offset": 0.0})
    events["filepath"] = str(path)
    for feature, most in ((Pitch(), 4.0), (Envelope(), 0.03), (SpeechActivity(), 0.1)):
        table = build_table(feature, [events], [360], RATE, cache)
        got = table.rows[table.timelines[0]][12:-12, 0]
        expected = course(feature, glide)[(np.arange(12, 348) / 1.2).astype(int)]
        both = (got > 0) & (expected > 0)
        assert both.mean() > 0.85 * (expected > 0).mean()
        assert np.abs(got - expected)[both].max() < most


# Pitch


@pytest.mark.parametrize("f0", [105, 150, 220, 340])
def test_pitch_of_a_voice_is_its_fundamental(f0):
    pitch = course(Pitch(), voice(f0))[5:-5]
    np.testing.assert_allclose(pitch, f0, rtol=0.005)


def test_pitch_follows_a_glide():
    pitch = course(Pitch(), 0.3 * chirp(seconds(2), 120, 2, 300))
    expected = 120 + 90 * np.arange(200) / 100  # of the moment that the frame is centred on
    np.testing.assert_allclose(pitch[5:-5], expected[5:-5], rtol=0.02)


def test_pitch_out_of_range_is_not_found():
    assert not course(Pitch(min_f0=200, max_f0=350), voice(120) - voice(120).mean()).any()
    np.testing.assert_allclose(course(Pitch(60, 200), voice(80))[10:-10], 80, rtol=0.005)


def test_noise_has_no_pitch(caplog):
    assert not course(Pitch(), noise(2.0)).any()
    assert "Pitch: no voice between 100 and 350 Hz in a piece of 2.00 s, all of it is 0." in (
        caplog.text
    )


def test_voicing_threshold_is_the_noise_that_a_voice_may_have():
    mixed = voice(150, 2.0) + noise(2.0, 0.1)
    shares = [
        (course(Pitch(voicing_threshold=threshold), mixed) > 0).mean()
        for threshold in (0.02, 0.1, 0.3)
    ]
    assert shares[0] < 0.05
    assert shares[2] > 0.95
    assert shares == sorted(shares)


def test_threshold_of_yin_takes_the_first_dip_below_it():
    # Every second period a little different: at a strict threshold the true period, else half.
    alternating = voice(240) + 0.25 * voice(120)
    strict, lax = (course(Pitch(threshold=threshold), alternating) for threshold in (0.02, 0.2))
    assert np.median(strict) == pytest.approx(120, rel=0.01)
    assert np.median(lax) == pytest.approx(240, rel=0.01)


def test_pitch_in_parts_is_that_of_the_whole(monkeypatch, speech):
    whole = course(Pitch(), speech)
    monkeypatch.setattr(bm.features.audio, "FRAMES_AT_ONCE", 37)
    np.testing.assert_allclose(course(Pitch(), speech), whole, rtol=1e-4)


def test_pitch_of_real_speech_is_that_of_another_method(speech):
    import librosa

    f0, voiced, _ = librosa.pyin(  # with a model of how pitch moves; a far slower method
        speech.astype(np.float32), fmin=100, fmax=350, sr=SOUND_RATE, frame_length=1024,
        hop_length=160,
    )  # fmt: skip
    pitch = course(Pitch(), speech)
    f0, voiced = f0[: len(pitch)], voiced[: len(pitch)]
    found = pitch > 0
    assert 0.3 < found.mean() < 0.6
    assert voiced[found].mean() > 0.85
    both = found & voiced
    assert np.abs(np.log2(pitch[both] / f0[both])).max() < 0.05  # no octave errors


@pytest.mark.parametrize(
    "options", [{"min_f0": 350, "max_f0": 100}, {"min_f0": 5}, {"max_f0": 9000}, {"threshold": 0}]
)
def test_impossible_options_of_pitch_are_refused(options):
    with pytest.raises(ValueError, match="Pitch: "):
        Pitch(**options)


def test_missing_librosa_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)  # as if it weren't installed
    with pytest.raises(ImportError, match=r"pip install bm\[audio\]"):
        Pitch().frames(torch.zeros(SOUND_RATE))


# Envelope


def test_envelope_is_the_modulation_of_the_sound():
    modulation = 0.5 + 0.4 * np.sin(2 * np.pi * 4 * seconds(3))
    carrier = np.sin(2 * np.pi * 1000 * seconds(3))
    envelope = course(Envelope(), modulation * carrier)
    np.testing.assert_allclose(envelope[10:-10], modulation[::160][10:-10], atol=0.005)
    compressed = course(Envelope(0.3), modulation * carrier)
    np.testing.assert_allclose(compressed, envelope**0.3, rtol=1e-5)


def test_envelope_grows_with_the_sound():
    quiet, loud = course(Envelope(), noise(1.0)), course(Envelope(), 5 * noise(1.0))
    np.testing.assert_allclose(loud, 5 * quiet, rtol=1e-4)
    with pytest.raises(ValueError, match="compression=0"):
        Envelope(0.0)


def test_envelope_of_real_speech_is_its_loudness(speech):
    envelope = course(Envelope(), speech)
    loudness = np.sqrt(np.square(speech).reshape(-1, 160).mean(axis=1))
    between = (loudness[1:] + loudness[:-1]) / 2  # frames are centred on the borders of these
    assert np.corrcoef(envelope[1:], between)[0, 1] > 0.95


# Speech activity


def test_activity_is_in_pauses_zero_and_in_speech_one(speech):
    pause = 1e-4 * noise(1.0)
    activity = course(SpeechActivity(), np.concatenate([speech, pause, speech]))
    assert activity.min() == 0.0
    assert activity.max() == 1.0
    n = len(speech) // 160
    assert activity[n + 5 : n + 95].max() == 0
    assert activity[:n].mean() > 0.8


def test_activity_rises_from_the_threshold_over_10_db():
    steps = [0.0, -15.0, -25.0, -35.0]  # dB below the loudest
    tone = np.sin(2 * np.pi * 500 * seconds(1))
    sound = np.concatenate([10 ** (level / 20) * tone for level in steps])
    for threshold, expected in ((-30, [1.0, 1.0, 0.5, 0.0]), (-20, [1.0, 0.5, 0.0, 0.0])):
        activity = course(SpeechActivity(threshold), sound)
        np.testing.assert_allclose(activity[50::100], expected, atol=0.02)


def test_activity_does_not_depend_on_the_gain(speech):
    np.testing.assert_allclose(
        course(SpeechActivity(), speech), course(SpeechActivity(), 0.2 * speech), atol=1e-5
    )


def test_whisper_of_noise_is_no_speech(caplog):
    assert not course(SpeechActivity(), noise(1.0, 1e-4)).any()  # below -70 dB of full scale
    with pytest.raises(ValueError, match="threshold_db=3"):
        SpeechActivity(3)
