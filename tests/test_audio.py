"""Reading sound files: exact windows, and a clear word about every broken file."""

import os

import numpy as np
import pytest
import soundfile
import torch

from bm.core.messages import DataError
from bm.recordings.sound import END_TOLERANCE, read_sound, sound_digest, sound_duration

RATE = 44_100


@pytest.fixture
def stereo():
    """Five seconds of noise, another one on each side."""
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal((5 * RATE, 2))).astype(np.float32)


def write(folder, samples, name="sound.wav", rate=RATE, **options):
    path = folder / name
    soundfile.write(path, samples, rate, **options)
    return path


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_window_equals_the_same_samples_of_the_whole_file(tmp_path, stereo, extension):
    path = write(tmp_path, stereo, f"sound.{extension}")
    whole, _ = soundfile.read(path, dtype="float32")
    window = read_sound(path, 1.25, 2.0, RATE)
    first = round(1.25 * RATE)
    np.testing.assert_array_equal(window, whole[first : first + 2 * RATE].mean(axis=1))
    assert sound_duration(path) == 5.0


def test_wav_of_16_bits_comes_back_to_the_bit(tmp_path):
    samples = np.arange(-4000, 4000, dtype=np.int16)
    path = write(tmp_path, samples, rate=16_000)
    np.testing.assert_array_equal(read_sound(path, 0.0, 0.5), samples.astype(np.float32) / 2**15)


@pytest.mark.parametrize("native", [22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone(tmp_path, native):
    time = np.arange(2 * native) / native
    path = write(tmp_path, 0.5 * np.sin(2 * np.pi * 440 * time), rate=native, subtype="FLOAT")
    tone = read_sound(path, 0.0, 2.0)
    assert tone.shape == (32_000,)
    assert tone.dtype == torch.float32
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    np.testing.assert_allclose(tone[500:-500], expected[500:-500], atol=2e-3)


def test_nothing_outside_the_window_has_an_influence(tmp_path, stereo):
    changed = stereo.copy()
    changed[: 2 * RATE] = 0.9
    changed[3 * RATE :] = -0.9
    quiet, loud = write(tmp_path, stereo, "quiet.wav"), write(tmp_path, changed, "loud.wav")
    assert torch.equal(read_sound(quiet, 2.0, 1.0), read_sound(loud, 2.0, 1.0))
    assert not torch.equal(read_sound(quiet, 2.0, 1.01), read_sound(loud, 2.0, 1.01))


def test_pieces_of_a_file_put_together_are_the_file(tmp_path, stereo):
    path = write(tmp_path, stereo)
    borders = [0.0, 1.23456, 2.00001, 4.4, 5.0]
    pieces = [
        read_sound(path, begin, end - begin, RATE)
        for begin, end in zip(borders[:-1], borders[1:], strict=True)
    ]
    assert torch.equal(torch.cat(pieces), read_sound(path, 0.0, 5.0, RATE))


def test_a_file_a_little_too_short_ends_in_silence(tmp_path, stereo):
    path = write(tmp_path, stereo)
    samples = read_sound(path, 4.0, 1.0 + END_TOLERANCE / 2, RATE)
    assert len(samples) == round((1.0 + END_TOLERANCE / 2) * RATE)
    assert samples[RATE:].abs().max() == 0
    assert samples[RATE - 100 : RATE].abs().max() > 0


def test_a_file_much_too_short_is_refused(tmp_path, stereo):
    path = write(tmp_path, stereo)
    with pytest.raises(DataError, match=r"sound\.wav: lasts 5\.000 s, but 4\.000 to 6\.000"):
        read_sound(path, 4.0, 2.0)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
def test_truncated_file_is_refused_by_name(tmp_path, stereo, extension):
    path = write(tmp_path, stereo, f"sound.{extension}")
    content = path.read_bytes()
    path.write_bytes(content[: int(0.6 * len(content))])
    with pytest.raises(DataError, match=rf"sound\.{extension}.*truncated"):
        sound_duration(path)
    with pytest.raises(DataError, match="truncated"):
        read_sound(path, 0.0, 1.0)


def test_wav_written_to_a_pipe_has_no_length_and_is_read(tmp_path):
    path = write(tmp_path, np.ones(16_000, dtype=np.int16), rate=16_000)
    content = bytearray(path.read_bytes())
    place = content.find(b"data") + 4
    content[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert sound_duration(path) == 1.0


def test_page_of_a_failed_download_is_called_one(tmp_path):
    path = tmp_path / "sound.wav"
    path.write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(DataError, match=r"sound\.wav.*failed download"):
        sound_duration(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.wav is missing"):
        read_sound(tmp_path / "nowhere.wav", 0.0, 1.0)


def test_annexed_file_without_content_says_how_to_get_it(tmp_path):
    path = tmp_path / "sound.wav"
    path.symlink_to(tmp_path / ".git" / "annex" / "objects" / "x")
    with pytest.raises(DataError, match="datalad get"):
        sound_duration(path)


def test_empty_file_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    path.touch()
    with pytest.raises(DataError, match=r"sound\.wav: it is empty"):
        sound_duration(path)


def test_nan_in_the_window_is_refused_and_beside_it_is_not(tmp_path, stereo):
    stereo[4 * RATE] = np.nan
    path = write(tmp_path, stereo, subtype="FLOAT")
    with pytest.raises(DataError, match=r"sound\.wav: NaN"):
        read_sound(path, 3.5, 1.0)
    assert torch.isfinite(read_sound(path, 0.0, 3.5)).all()


def test_negative_offset_is_a_value_error(tmp_path, stereo):
    with pytest.raises(ValueError, match=r"offset=-1\.0"):
        read_sound(write(tmp_path, stereo), -1.0, 1.0)


def test_digest_follows_the_content_and_not_the_name(tmp_path, stereo):
    first, second = write(tmp_path, stereo), write(tmp_path, stereo, "copy.wav")
    other = write(tmp_path, -stereo, "other.wav")
    assert sound_digest(first) == sound_digest(second) != sound_digest(other)


def test_replaced_file_is_read_anew(tmp_path, stereo):
    path = write(tmp_path, stereo)
    before = sound_digest(path), sound_duration(path)
    write(tmp_path, stereo[: 2 * RATE])
    os.utime(path, ns=(1, 1))
    assert sound_duration(path) == 2.0
    assert sound_digest(path) != before[0]
