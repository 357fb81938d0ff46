"""Features: numbers equal to torchaudio's, the right row at the right sample, each sound once."""

import inspect
import logging
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from helpers import RATE, SOUND_RATE, write_sound

from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.events import cut_sounds_at_blocks
from bm.features import (
    EventFeature,
    Feature,
    FeatureTable,
    SoundFeature,
    build_table,
    make_features,
    registry,
    word_mask,
)
from bm.features.mel import MelSpectrum
from bm.features.words import WordHash
from bm.recordings.sound import read_sound

# As stored in golden/mel.npz, with torchaudio 2.11.0.
MELS: dict[str, dict[str, Any]] = {
    "plain": {"n_fft": 512, "n_mels": 120, "normalized": True},
    "unnormalized": {"n_fft": 512, "n_mels": 120, "normalized": False},
    "long": {"n_fft": 1024, "n_mels": 80, "normalized": True},
    "few": {"n_fft": 400, "n_mels": 20, "normalized": True},
}


class Ramp(SoundFeature):
    """Tells the time in the piece at which each frame begins, and what the piece is made of."""

    dimension = 3

    def __init__(self, frame_rate: int = 50):
        self.frame_rate = frame_rate
        self.n_calls = 0

    @property
    def default(self) -> float:
        return -1.0

    @property
    def key(self) -> dict[str, Any]:
        return {"frame_rate": self.frame_rate}

    def frames(self, sound: torch.Tensor) -> np.ndarray:
        self.n_calls += 1
        n = round(len(sound) * self.frame_rate / self.input_rate)
        begins = np.arange(n) / self.frame_rate
        whole = np.full(n, float(sound.double().square().sum()))
        return np.stack([begins, whole, np.full(n, len(sound))], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def golden(root) -> dict[str, np.ndarray]:
    with np.load(root / "tests" / "golden" / "mel.npz") as numbers:
        return dict(numbers)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Ten seconds of noise."""
    return write_sound(tmp_path / "sound.wav", 10.0)


def sounds(*rows: tuple[float, float, Path, float]) -> pd.DataFrame:
    """Sound events of (start, duration, file, offset)."""
    table = pd.DataFrame(list(rows), columns=["start", "duration", "filepath", "offset"])
    return table.assign(kind="sound", filepath=table["filepath"].astype(str))


def words(*rows: tuple[float, float, str]) -> pd.DataFrame:
    """Word events of (start, duration, word)."""
    return pd.DataFrame(list(rows), columns=["start", "duration", "word"]).assign(kind="word")


def build(
    feature: Feature, cache: Cache, *tables: pd.DataFrame, seconds: float = 20.0
) -> FeatureTable:
    return build_table(feature, tables, [int(seconds * RATE)] * len(tables), RATE, cache)


def values(table: FeatureTable, recording: int = 0) -> np.ndarray:
    """[T, F] what each sample of a recording sees."""
    return table.rows[table.timelines[recording]]


# Mel spectrogram


@pytest.mark.parametrize("name", MELS)
def test_mel_is_that_of_torchaudio(golden, name):
    sound, expected = torch.from_numpy(golden["sound"]), golden[name]
    linear = MelSpectrum(**MELS[name], use_log_scale=False).frames(sound)
    assert linear.shape == expected.shape
    assert np.abs(linear - expected).max() <= 1e-5 * np.abs(expected).max()
    log = MelSpectrum(**MELS[name]).frames(sound)
    np.testing.assert_allclose(log, np.log10(expected + 1e-5), atol=1e-5)


@pytest.mark.parametrize("name", MELS)
def test_mel_is_that_of_the_torchaudio_at_hand(golden, name, monkeypatch):
    # Beside a CPU build of torch its compiled part, not needed here, doesn't load.
    compiled = types.ModuleType("torchaudio._extension")
    compiled._IS_TORCHAUDIO_EXT_AVAILABLE = compiled._IS_ALIGN_AVAILABLE = False
    compiled.fail_if_no_align = lambda function: function
    monkeypatch.setitem(sys.modules, "torchaudio._extension", compiled)
    torchaudio = pytest.importorskip("torchaudio", reason="torchaudio is not installed")
    options = MELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # filters narrower than a bin of the spectrum are empty
        transform = torchaudio.transforms.MelSpectrogram(
            sample_rate=16_000, hop_length=options["n_fft"] // 4, **options
        )
    sound = torch.from_numpy(golden["sound"])
    expected = np.log10(transform(sound).T.numpy() + 1e-5)
    np.testing.assert_allclose(MelSpectrum(**options).frames(sound), expected, atol=1e-5)


def test_mel_options_do_what_they_say(golden):
    sound = torch.from_numpy(golden["sound"])
    linear = MelSpectrum(use_log_scale=False).frames(sound)
    np.testing.assert_allclose(
        MelSpectrum(log_scale_eps=1e-3).frames(sound), np.log10(linear + 1e-3), atol=1e-5
    )
    energy = np.square(np.hanning(513)[:512]).sum()  # of the window
    unnormalized = MelSpectrum(normalized=False, use_log_scale=False).frames(sound)
    np.testing.assert_allclose(unnormalized, energy * linear, rtol=1e-4)
    assert MelSpectrum(n_mels=40).frames(sound).shape == (63, 40)
    assert MelSpectrum(n_fft=256).frames(sound).shape == (126, 120)
    assert (MelSpectrum(n_mels=40).dimension, MelSpectrum().dimension) == (40, 120)


def test_tone_lights_the_band_of_its_pitch():
    time = torch.arange(16_000) / 16_000
    mel = MelSpectrum(n_mels=40, use_log_scale=False)
    highest = 2595 * np.log10(1 + 8000 / 700)
    for pitch in (300.0, 1000.0, 4000.0):
        frames = mel.frames(torch.sin(2 * torch.pi * pitch * time))
        band = 2595 * np.log10(1 + pitch / 700) / highest * 41 - 1
        assert abs(frames[30].argmax() - band) <= 1


def test_silence_is_the_default(tmp_path, cache):
    soundfile.write(tmp_path / "silence.wav", np.zeros(32_000), SOUND_RATE)
    for mel in (MelSpectrum(n_mels=20), MelSpectrum(n_mels=20, use_log_scale=False)):
        assert mel.default == pytest.approx(-5.0 if mel.use_log_scale else 0.0)
        table = build(mel, cache, sounds((1.0, 2.0, tmp_path / "silence.wav", 0.0)))
        np.testing.assert_allclose(values(table), mel.default, rtol=1e-6)


def test_mel_of_real_speech(shared_data, cache):
    mel = MelSpectrum()
    for path in sorted((shared_data / "librivox").glob("*.wav")):
        info = soundfile.info(path)
        table = build(mel, cache, sounds((2.0, info.duration, path, 0.0)))
        seen = values(table)
        heard = slice(int(2.0 * RATE) + 1, int((2.0 + info.duration) * RATE) - 1)
        assert len(table.rows) == 2 + info.frames // 128  # a frame every 8 ms, and the default
        assert seen.shape == (2400, 120)
        assert np.isfinite(seen).all()
        assert (seen[:240] == np.float32(-5.0)).all()  # nothing is heard before
        assert seen.min() >= -5.0 - 1e-6
        assert -4.2 < seen[heard].mean() < -3.7  # speech is far above silence
        assert 1.0 < seen[heard].std() < 1.4


def test_too_short_a_piece_is_an_error():
    with pytest.raises(DataError, match="a piece of 256 samples is shorter than half a window"):
        MelSpectrum().frames(torch.zeros(256))
    assert len(MelSpectrum().frames(torch.zeros(257))) == 3


def test_every_argument_names_the_table_in_the_cache():
    arguments = inspect.signature(MelSpectrum).parameters
    assert set(MelSpectrum().key) == set(arguments)
    other = {"n_fft": 256, "n_mels": 7, "normalized": False, "use_log_scale": False,
             "log_scale_eps": 1e-3}  # fmt: skip
    assert set(other) == set(arguments)
    for name, value in other.items():
        assert MelSpectrum(**{name: value}).key == {**MelSpectrum().key, name: value}


# Along the recording


@pytest.mark.parametrize("start", [2.0, 2.0041, 3.3333, 0.0])
@pytest.mark.parametrize("offset", [0.0, 4.5])
def test_each_sample_sees_the_frame_of_its_moment(sound, cache, start, offset):
    duration = 5.0
    table = build(Ramp(), cache, sounds((start, duration, sound, offset)))
    time = np.arange(2400) / RATE
    heard = (time >= start) & (time < start + duration)
    seen = values(table)[:, 0]
    assert (seen[~heard] == -1).all()
    elapsed = time[heard] - start
    frame = np.floor(elapsed * 50 + 1e-6)  # the frame that has begun, not the next
    np.testing.assert_allclose(seen[heard], np.minimum(frame, 249) / 50, atol=1e-6)


def test_clicks_are_seen_when_they_are_heard(tmp_path, cache):
    clicks = np.array([0.5, 1.7, 3.21, 4.9])  # seconds of the file
    samples = np.zeros(6 * SOUND_RATE)
    samples[(clicks * SOUND_RATE).astype(int)] = 0.9
    soundfile.write(tmp_path / "clicks.wav", samples, SOUND_RATE)
    mel = MelSpectrum(n_mels=20)
    whole = sounds((3.07, 6.0, tmp_path / "clicks.wav", 0.0))
    blocks = pd.DataFrame({"start": [5.7], "duration": [2.02]})  # cuts at 2.63 and 4.65 s
    cut = cut_sounds_at_blocks(whole, blocks)
    assert len(cut) == 3
    for events in (whole, cut):
        seen = values(build(mel, cache, events)).mean(axis=1)
        for click in clicks:
            expected = round((3.07 + click) * RATE)
            around = seen[expected - 20 : expected + 21]
            assert abs(around.argmax() - 20) <= 1


def test_pieces_are_laid_end_to_end(sound, cache):
    events = sounds((1.0, 4.0, sound, 0.0), (5.0, 6.0, sound, 4.0))
    table = build(Ramp(), cache, events)
    seen = values(table)
    assert seen[int(1.0 * RATE), 0] == 0.0
    assert seen[int(5.0 * RATE) - 1, 0] == pytest.approx(3.98)
    assert seen[int(5.0 * RATE), 0] == 0.0
    first, second = read_sound(sound, 0.0, 4.0), read_sound(sound, 4.0, 6.0)
    assert seen[200, 1] == pytest.approx(float(first.double().square().sum()), rel=1e-6)
    assert seen[900, 1] == pytest.approx(float(second.double().square().sum()), rel=1e-6)


def test_recording_may_end_before_the_sound(sound, cache):
    table = build(Ramp(), cache, sounds((15.0, 10.0, sound, 0.0)), seconds=18.0)
    assert table.timelines[0].shape == (2160,)
    assert values(table)[-1, 0] == pytest.approx(2.98)


@pytest.mark.parametrize("border", [4.0, 4.1234567, 3.9996])
def test_sound_beyond_a_block_border_has_no_influence(tmp_path, cache, border):
    samples, _ = soundfile.read(write_sound(tmp_path / "a.wav", 10.0))
    start = 1.23456  # of the sound in the recording
    first = int(np.ceil((border - start) * SOUND_RATE - 1e-6))  # sample of the file, at or after
    spoilt = samples.copy()
    spoilt[first:] = np.random.default_rng(5).uniform(-0.9, 0.9, len(samples) - first)
    soundfile.write(tmp_path / "b.wav", spoilt, SOUND_RATE)
    blocks = pd.DataFrame({"start": [0.0, border], "duration": [border, np.inf]})
    seen = []
    for name in ("a.wav", "b.wav"):
        events = cut_sounds_at_blocks(sounds((start, 10.0, tmp_path / name, 0.0)), blocks)
        assert len(events) == 2
        seen.append(values(build(MelSpectrum(n_mels=20), cache, events)))
    inside = np.arange(2400) / RATE < border
    np.testing.assert_array_equal(seen[0][inside], seen[1][inside])
    assert (seen[0][~inside] != seen[1][~inside]).any()


# Each sound once


def test_people_who_hear_the_same_share_rows_and_the_cache(tmp_path, sound, cache):
    copy = tmp_path / "copy.wav"
    copy.write_bytes(sound.read_bytes())
    ramp = Ramp()
    jitter = 1e-9  # sums of floats differ between recordings
    tables = [
        sounds((1.0, 4.0, sound, 2.0)),
        sounds((7.3, 4.0 + jitter, copy, 2.0 - jitter)),
        sounds((3.0, 4.0 - jitter, sound, 2.0 + jitter), (8.0, 1.0, sound, 2.0)),
    ]
    table = build(ramp, cache, *tables)
    assert ramp.n_calls == 2
    assert len(table.rows) == 1 + 200 + 50
    for number, start in enumerate((1.0, 7.3, 3.0)):
        first = int(np.ceil(start * RATE - 1e-6))
        np.testing.assert_array_equal(
            table.timelines[number][first : first + 400] > 0, np.ones(400, dtype=bool)
        )
        assert set(table.timelines[number][first : first + 480]) == set(range(1, 201))
    again = build(ramp, Cache(cache.folder), *tables)  # as another process would
    assert ramp.n_calls == 2
    np.testing.assert_array_equal(again.rows, table.rows)
    assert len(list((cache.folder / "features").glob("Ramp-*"))) == 2
    build(Ramp(frame_rate=25), cache, *tables)
    assert len(list((cache.folder / "features").glob("Ramp-*"))) == 4


def test_changed_sound_is_computed_anew(sound, cache):
    before = build(Ramp(), cache, sounds((1.0, 4.0, sound, 0.0)))
    write_sound(sound, 11.0, seed=9)
    after = build(Ramp(), cache, sounds((1.0, 4.0, sound, 0.0)))
    assert before.rows[1, 1] != after.rows[1, 1]


def test_remains_of_a_cut_sound_are_silence_and_counted(sound, cache, caplog):
    events = sounds((1.0, 0.03, sound, 0.0), (2.0, 0.049, sound, 3.0), (5.0, 2.0, sound, 4.0))
    with caplog.at_level(logging.WARNING):
        table = build(Ramp(), cache, events)
    assert "Ramp: 2 piece(s) of sound shorter than 0.05 s count as silence" in caplog.text
    assert (values(table)[: int(5.0 * RATE)] == -1).all()


def test_broken_sound_is_named(tmp_path, cache):
    samples = np.zeros(32_000)
    samples[20_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, SOUND_RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"nan\.wav: NaN"):
        build(Ramp(), cache, sounds((1.0, 2.0, tmp_path / "nan.wav", 0.0)))
    short = write_sound(tmp_path / "short.wav", 0.06)
    with pytest.raises(DataError, match=r"MelSpectrum of .*short\.wav at 0\.0 s: a piece of 960"):
        build(MelSpectrum(n_fft=2048), cache, sounds((1.0, 0.06, short, 0.0)))


# Words


def test_word_is_seen_from_its_start_to_its_end(cache):
    events = words((1.0, 0.5, "sea"), (1.6, 0.25, "None"), (2.001, 0.1, "sea"))
    table = build(WordHash(), cache, events, seconds=5.0)
    sea, none = WordHash().values(events)[:2, 0]
    seen = values(table)[:, 0]
    expected = np.zeros(600, dtype=np.float32)
    expected[120:180] = sea
    expected[192:222] = none
    expected[241:253] = sea  # 240.12 to 252.12: the first sample at or after
    np.testing.assert_array_equal(seen, expected)
    assert len(table.rows) == 3  # nothing, sea, None
    assert sea != none != 0


def test_later_event_counts_and_a_tiny_one_has_no_sample(cache):
    events = words((1.0, 1.0, "long"), (1.5, 0.2, "inner"), (1.801, 0.003, "tiny"))
    seen = values(build(WordHash(), cache, events, seconds=5.0))[:, 0]
    long, inner, tiny = WordHash().values(events)[:, 0]
    assert (seen[120:180] == long).all()
    assert (seen[180:204] == inner).all()
    assert (seen[204:240] == long).all()
    assert tiny not in seen


def test_recordings_share_the_rows_of_equal_words(cache):
    one, two = words((1.0, 0.5, "sea"), (2.0, 0.5, "bird")), words((3.0, 0.5, "Bird"))
    table = build(WordHash(), cache, one, two, seconds=5.0)
    assert len(table.rows) == 3
    assert table.timelines[0][240] == table.timelines[1][360] > 0
    assert {timeline.dtype for timeline in table.timelines} == {np.dtype(np.int32)}


def test_word_hash_is_the_same_in_every_process(python_env):
    program = (
        "import pandas as pd; from bm.features.words import WordHash\n"
        "events = pd.DataFrame({'word': ['sea', 'None', 'Zoë', \"don't\"]})\n"
        "print(WordHash().values(events)[:, 0].tolist())"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**python_env, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    # Pinned: these numbers are part of stored features.
    assert results == {"[35683.0, 47209.0, 6433.0, 14660.0]"}


def test_word_hash_tells_words_apart():
    vocabulary = [f"word{number}" for number in range(2000)]
    events = pd.DataFrame({"word": [*vocabulary, *vocabulary, "WORD7"]})
    numbers = WordHash().values(events)[:, 0]
    assert len(set(numbers)) == 2000
    np.testing.assert_array_equal(numbers[:2000], numbers[2000:4000])
    assert numbers[-1] == numbers[7]
    assert numbers.min() >= 1  # 0: nothing is heard
    assert numbers.max() < 100_000 == WordHash().cardinality
    assert not WordHash.normalizable
    few = WordHash(2001).values(events)[:, 0]
    assert (few.min(), few.max(), len(set(few))) == (1, 2000, 2000)
    with pytest.raises(ValueError, match=r"2000 different words need more than.*buckets=2000"):
        WordHash(2000).values(events)
    for buckets in (1, 2**25):
        with pytest.raises(ValueError, match=f"buckets={buckets} must lie"):
            WordHash(buckets)


def test_mask_marks_the_words(sound):
    events = pd.concat([sounds((0.0, 4.0, sound, 0.0)), words((1.0, 0.5, "sea"))])
    masks = word_mask([events, events[:1]], [600, 240], RATE)
    assert np.flatnonzero(masks[0]).tolist() == list(range(120, 180))
    assert not masks[1].any()
    assert masks[1].shape == (240,)


# Registry


def test_features_are_made_by_name_with_their_own_parameters():
    params = {"MelSpectrum": {"n_mels": 40}, "Pitch": {"unused": 1}}
    mel, word = make_features(["MelSpectrum", "WordHash"], params)
    assert (mel.name, mel.dimension) == ("MelSpectrum", 40)
    assert (word.name, word.dimension) == ("WordHash", 1)
    assert {"MelSpectrum", "WordHash"} <= set(registry)


def test_unknown_feature_or_parameter_is_named():
    with pytest.raises(ValueError, match=r"dset\.features='MelSpektrum'.*mean 'MelSpectrum'"):
        make_features(["MelSpektrum"], {})
    with pytest.raises(ValueError, match=r"features_params\.MelSpectrum has no 'n_mel'.*'n_mels'"):
        make_features(["MelSpectrum"], {"MelSpectrum": {"n_mel": 3}})


def test_feature_without_events_is_an_error(sound, cache):
    with pytest.raises(DataError, match="WordHash needs word events"):
        build(WordHash(), cache, sounds((1.0, 2.0, sound, 0.0)))


def test_new_event_feature_is_a_small_class(cache):
    class Length(EventFeature):
        def values(self, events: pd.DataFrame) -> np.ndarray:
            return events["word"].str.len().to_numpy()[:, None]

    table = build(Length(), cache, words((1.0, 0.5, "sea"), (2.0, 0.5, "bird")), seconds=5.0)
    assert values(table)[[0, 130, 250], 0].tolist() == [0.0, 3.0, 4.0]
    assert table.feature.name == "Length"
