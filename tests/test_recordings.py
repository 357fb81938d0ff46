"""From a raw file to a stored signal: resampling, filters, memory, sensors and broken files."""

import logging
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import julius
import mne
import numpy as np
import pandas as pd
import pytest
import torch

from bm.core.cache import Cache
from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.recordings import Preprocessing, Recording, Signal
from bm.recordings import preprocess as preprocess_module
from bm.recordings.preprocess import preprocess
from bm.recordings.sensors import Sensors

RATE = 1000.0


class FileRecording(Recording):
    """One FIF file, and a table of events."""

    def __init__(self, file: Path, cache: Cache, events: pd.DataFrame | None = None):
        super().__init__("mine", "01", "01_session0", cache)
        self.file = file
        self.table = events

    def load_raw(self) -> mne.io.BaseRaw:
        return mne.io.read_raw_fif(self.file)

    def load_events(self) -> pd.DataFrame:
        assert self.table is not None
        return self.table

    def source_files(self) -> Sequence[Path]:
        return [self.file]


def noise(n_sensors: int = 8, seconds: float = 20.0, rate: float = RATE) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(n_sensors, round(seconds * rate))).astype(np.float32)


def raw_array(values: np.ndarray, rate: float = RATE, kind: str = "mag") -> mne.io.RawArray:
    return mne.io.RawArray(values, mne.create_info(len(values), rate, kind))


def biosemi(values: np.ndarray, extra: Sequence[str] = ()) -> mne.io.RawArray:
    """EEG at the places of a 32-channel cap; `extra` channels have no place."""
    montage = mne.channels.make_standard_montage("biosemi32")
    names = [*montage.ch_names, *extra]
    raw = mne.io.RawArray(values[: len(names)], mne.create_info(names, RATE, "eeg"))
    return raw.set_montage(montage, on_missing="ignore")


def run(raw: mne.io.BaseRaw, folder: Path, **how: Any) -> Signal:
    folder.mkdir(exist_ok=True)
    preprocess(raw, Preprocessing(**how), folder, "rec 1")
    return Signal.load(folder)


def power(course: np.ndarray, frequency: float, rate: float) -> float:
    """Squared amplitude at one frequency, away from the edges."""
    inner = course[len(course) // 4 : -len(course) // 4]
    times = np.arange(len(inner)) / rate
    return float(np.abs(2 * np.mean(inner * np.exp(-2j * np.pi * frequency * times))) ** 2)


# Resampling


@pytest.mark.parametrize("rate", [1000.0, 500.0, 128.0, 1200.0, 121.0])
def test_chunked_resampling_equals_that_of_the_whole_recording(tmp_path, monkeypatch, rate):
    values = noise(4, 33.37, rate)
    monkeypatch.setattr(preprocess_module, "CHUNK_BYTES", 8 * 4 * 7 * rate)  # some 7 s a chunk
    signal = run(raw_array(values, rate), tmp_path / "chunked", sample_rate=120.0)
    whole = julius.resample_frac(torch.from_numpy(values), int(rate), 120).T.numpy()
    assert signal.data.shape == whole.shape == (values.shape[1] * 120 // int(rate), 4)
    np.testing.assert_allclose(signal.data, whole, atol=1e-5)


def test_length_is_rounded_down_as_published(tmp_path):
    signal = run(raw_array(noise(1, 99_999 / 1200, 1200.0), 1200.0), tmp_path, sample_rate=600.0)
    assert signal.n_samples == 49_999
    assert signal.duration == 49_999 / 600


def test_same_rate_keeps_every_sample(tmp_path):
    values = noise(3, 5.0, 120.0)
    signal = run(raw_array(values, 120.0), tmp_path, sample_rate=120.0)
    np.testing.assert_array_equal(signal.data, values.T)


def test_signal_is_contiguous_time_first_float32(tmp_path):
    signal = run(raw_array(noise(3, 5.0)), tmp_path)
    assert signal.data.shape == (600, 3)
    assert signal.data.flags["C_CONTIGUOUS"]
    assert signal.data.dtype == np.float32
    assert signal.sample_rate == 120.0


def test_odd_rate_keeps_time_to_the_end(tmp_path):
    """600.615 Hz, as some Elekta systems have: a click 300 s on is found 300 s on."""
    rate = 600.614990234375
    values = np.zeros((1, round(310 * rate)), dtype=np.float32)
    values[0, round(300 * rate)] = 1.0
    signal = run(raw_array(values, rate), tmp_path)
    window = slice(300 * 120 - 50, 300 * 120 + 51)
    energy = signal.data[window, 0].astype(float) ** 2
    centre = (energy * np.arange(window.start, window.stop)).sum() / energy.sum()
    assert abs(centre / 120 - 300) < 2e-3


def test_raising_the_rate_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"rec 1: recorded at 100 Hz.*dset\.sample_rate to 100"):
        run(raw_array(noise(2, 5.0, 100.0), 100.0), tmp_path, sample_rate=120.0)


def test_memory_stays_well_under_one_copy_at_full_rate(tmp_path, python_env):
    code = """
        import resource, sys
        from pathlib import Path
        import mne, scipy.signal, torch
        from bm.recordings.preprocess import Preprocessing, preprocess
        torch.set_num_threads(1)
        mne.set_log_level("ERROR")
        raw = mne.io.read_raw_fif(sys.argv[1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        preprocess(raw, Preprocessing(highpass=0.5, bandpass=(1, 40)), Path(sys.argv[2]), "rec 1")
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
    """
    values = noise(100, 300.0)
    file = tmp_path / "big_raw.fif"
    raw_array(values).save(file)
    command = [sys.executable, "-c", textwrap.dedent(code), str(file), str(tmp_path)]
    result = subprocess.run(command, env=python_env, capture_output=True, text=True, check=True)
    full_copy = values.size * 8  # MNE's arrays are float64
    assert int(result.stdout) < 0.5 * full_copy
    assert Signal.load(tmp_path).data.shape == (36_000, 100)


# Filters


def test_highpass_removes_drift_and_keeps_the_rest(tmp_path):
    times = np.arange(60_000) / RATE
    values = np.sin(2 * np.pi * 0.1 * times) + np.sin(2 * np.pi * 10 * times)
    raw = raw_array(values[None])
    plain = run(raw, tmp_path / "plain").data[:, 0]
    filtered = run(raw, tmp_path / "filtered", highpass=1.0).data[:, 0]
    assert power(plain, 0.1, 120.0) == pytest.approx(1.0, abs=0.02)
    assert power(filtered, 0.1, 120.0) < 1e-3
    assert power(filtered, 10.0, 120.0) == pytest.approx(1.0, abs=0.02)


def test_notch_removes_the_power_line_and_its_harmonics(tmp_path):
    times = np.arange(60_000) / RATE
    values = sum(np.sin(2 * np.pi * frequency * times) for frequency in (10, 50, 100))
    raw = raw_array(np.asarray(values)[None])
    filtered = run(raw, tmp_path, sample_rate=250.0, notch=50.0).data[:, 0]
    assert power(filtered, 50.0, 250.0) < 1e-3
    assert power(filtered, 100.0, 250.0) < 1e-3
    assert power(filtered, 10.0, 250.0) == pytest.approx(1.0, abs=0.02)


def test_bandpass_keeps_only_the_band(tmp_path):
    times = np.arange(60_000) / RATE
    values = sum(np.sin(2 * np.pi * frequency * times) for frequency in (0.2, 10, 50))
    raw = raw_array(np.asarray(values)[None])
    filtered = run(raw, tmp_path, bandpass=(2.0, 30.0)).data[:, 0]
    assert power(filtered, 0.2, 120.0) < 1e-3
    assert power(filtered, 50.0, 120.0) < 1e-3
    assert power(filtered, 10.0, 120.0) == pytest.approx(1.0, abs=0.02)


def test_sensors_filtered_together_are_filtered_as_if_alone(tmp_path):
    values = noise(19, 20.0)  # more than one group
    how = {"highpass": 0.5, "bandpass": (1.0, 40.0), "notch": 50.0}
    together = run(raw_array(values), tmp_path / "all", **how).data
    alone = run(raw_array(values[17:18]), tmp_path / "one", **how).data
    np.testing.assert_allclose(together[:, 17], alone[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"highpass": 60.0}, r"dset\.highpass=60\.0 Hz: must lie between 0 and 60\.0"),
        ({"highpass": -1.0}, r"dset\.highpass=-1\.0"),
        ({"notch": 60.0}, r"dset\.notch=60\.0"),
        ({"bandpass": (10.0, 1.0)}, r"dset\.bandpass=\(10\.0, 1\.0\)"),
        ({"bandpass": (1.0, 60.0)}, r"needs 0 < low < high < 60\.0"),
    ],
)
def test_impossible_filter_is_refused_with_its_key(how, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**how)


# Sensors


def test_nan_and_flat_sensors_are_zeroed_masked_counted_and_logged(tmp_path, caplog):
    values = noise(32)
    values[3, 7000] = np.nan
    values[5, 100] = np.inf
    values[8] = 42.0
    with caplog.at_level(logging.WARNING):
        signal = run(biosemi(values), tmp_path)
    unusable = np.zeros(32, dtype=bool)
    unusable[[3, 5, 8]] = True
    assert np.isfinite(signal.data).all()
    assert (signal.data[:, unusable] == 0).all()
    assert (signal.data[:, ~unusable].std(axis=0) > 0.1).all()
    assert ((signal.sensors.positions == NO_POSITION).all(axis=1) == unusable).all()
    assert (np.isnan(signal.sensors.positions_3d).all(axis=1) == unusable).all()
    assert "rec 1: 2 of 32 sensors contain NaN or infinite values and are left out" in caplog.text
    assert "rec 1: 1 of 32 sensors are flat and are left out: " in caplog.text


def test_sensors_marked_bad_are_left_out_and_named(tmp_path, caplog):
    raw = biosemi(noise(32))
    raw.info["bads"] = ["Cz", "Oz"]
    signal = run(raw, tmp_path)
    bad = np.isin(signal.sensors.names, ["Cz", "Oz"])
    assert ((signal.data == 0).all(axis=0) == bad).all()
    assert ((signal.sensors.positions == NO_POSITION).all(axis=1) == bad).all()
    assert "rec 1: 2 of 32 sensors are marked bad and are left out: " in caplog.text


def test_flat_sensor_is_found_even_when_filters_turn_it_to_rounding_noise(tmp_path):
    values = noise(32)
    values[8] = 42.0
    signal = run(biosemi(values), tmp_path, highpass=1.0, bandpass=(1.0, 40.0))
    assert (signal.data[:, 8] == 0).all()
    assert (signal.sensors.positions[8] == NO_POSITION).all()


def test_small_signal_on_a_large_offset_is_not_flat(tmp_path):
    """BioSemi amplifiers record microvolts on top of tens of millivolts."""
    signal = run(biosemi(noise(32) * 1e-6 + 0.03), tmp_path)
    assert (signal.sensors.positions != NO_POSITION).all()


def test_recording_of_flat_sensors_only_is_refused(tmp_path):
    with pytest.raises(DataError, match="rec 1: every sensor is marked bad, flat or"):
        run(raw_array(np.ones((3, 5000))), tmp_path)


def test_recording_without_brain_channels_is_refused(tmp_path):
    with pytest.raises(DataError, match="rec 1: no MEG or EEG channels among"):
        run(raw_array(noise(2, 5.0), kind="misc"), tmp_path)


def test_positions_fill_the_unit_square_and_survive_the_disk(tmp_path, caplog):
    raw = biosemi(noise(32))
    stored = run(raw, tmp_path).sensors
    np.testing.assert_allclose(stored.positions.min(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(stored.positions.max(axis=0), 1, atol=1e-6)
    assert stored.names == raw.ch_names
    place = dict(zip(stored.names, stored.positions, strict=True))
    assert place["Fp1"][0] < place["Fp2"][0]  # left is left
    assert place["Oz"][1] < place["Cz"][1] < place["Fz"][1]  # front is up
    expected = [raw.info["chs"][0]["loc"][:3]]
    np.testing.assert_allclose(stored.positions_3d[:1], expected)
    assert "no position" not in caplog.text


def test_sensors_without_a_position_leave_the_others_where_they_are(caplog):
    values = noise(34, 1.0)
    complete = Sensors.from_info(biosemi(values).info, "rec 1")
    partial = Sensors.from_info(biosemi(values, ["EXG1", "EXG2"]).info, "rec 1")
    np.testing.assert_array_equal(partial.positions[:32], complete.positions)
    assert (partial.positions[32:] == NO_POSITION).all()
    assert np.isnan(partial.positions_3d[32:]).all()
    assert "rec 1: 2 of 34 sensors have no position and are masked" in caplog.text
    assert "EXG1, EXG2" in caplog.text


def test_recording_without_any_position_is_usable_and_says_so(tmp_path, caplog):
    signal = run(raw_array(noise(12, 5.0), kind="eeg"), tmp_path)
    assert (signal.sensors.positions == NO_POSITION).all()
    assert signal.data.std() > 0.1
    assert "12 of 12 sensors have no position" in caplog.text


def test_bad_sensor_keeps_its_place():
    raw = biosemi(noise(32, 1.0))
    before = Sensors.from_info(raw.info, "rec 1").positions
    raw.info["bads"] = ["Cz"]
    np.testing.assert_array_equal(Sensors.from_info(raw.info, "rec 1").positions, before)


def test_real_kit_sensors_have_positions(shared_data):
    raw = mne.io.read_raw_kit(shared_data / "kit" / "MQKIT_125_2sec.con")
    info = mne.pick_info(raw.info, mne.pick_types(raw.info, meg=True))
    sensors = Sensors.from_info(info, "kit")
    assert (sensors.positions != NO_POSITION).all()
    assert np.isfinite(sensors.positions_3d).all()


def test_real_ctf_sensors_are_found_despite_the_suffix_of_their_names(shared_data):
    (folder,) = (shared_data / "ctf").glob("*.ds")
    raw = mne.io.read_raw_ctf(folder)
    info = mne.pick_info(raw.info, mne.pick_types(raw.info, meg=True, ref_meg=False))
    sensors = Sensors.from_info(info, "ctf")
    assert sensors.names[0] == "MLC11-4304"
    assert (sensors.positions != NO_POSITION).all()


# Recordings


@pytest.fixture
def fif(tmp_path: Path) -> Path:
    file = tmp_path / "sub-01_raw.fif"
    biosemi(noise(32, 40.0)).save(file)
    return file


def words(**columns: Any) -> pd.DataFrame:
    table = {"kind": "word", "start": [2.0, 3.0], "duration": 0.3, "word": ["None", "cat"]}
    return pd.DataFrame({**table, **columns})


def test_signal_is_computed_once_and_again_when_the_file_or_an_option_changes(fif, cache):
    recording = FileRecording(fif, cache)
    recording.preprocessed(120.0)
    recording.preprocessed(sample_rate=120.0, highpass=0)
    signals = cache.folder / "signals"
    assert len(list(signals.glob("mine-01_session0-*"))) == 1
    recording.preprocessed(100.0)
    assert len(list(signals.glob("mine-01_session0-*"))) == 2
    biosemi(noise(32, 41.0)).save(fif, overwrite=True)
    assert FileRecording(fif, cache).preprocessed(120.0).duration == 41.0


def test_events_are_validated_against_the_length_of_the_recording(fif, cache, caplog):
    recording = FileRecording(fif, cache, words(start=[3.0, 40.5]))
    events = recording.events()
    assert events["word"].tolist() == ["None"]
    assert "mine/01_session0: 1 event(s) outside the recording's 40.000 s" in caplog.text


def test_word_none_comes_out_of_the_cache_as_a_word(fif, cache):
    for _ in range(2):
        assert FileRecording(fif, cache, words()).events()["word"].tolist() == ["None", "cat"]


def test_filter_keeps_the_events_that_match_and_the_sounds_they_are_heard_in(fif, cache):
    table = words(condition=["list", "sentence"], filepath=np.nan)
    sounds = {"kind": "sound", "start": [1.5, 2.9], "duration": 0.9, "filepath": ["x", "y"]}
    table = pd.concat([table, pd.DataFrame(sounds)])
    recording = FileRecording(fif, cache, table)
    recording.events_filter = 'condition == "sentence"'
    events = recording.events()
    assert events["kind"].tolist() == ["sound", "word"]
    assert events["filepath"].iloc[0] == "y"
    assert events["word"].iloc[1] == "cat"


@pytest.mark.parametrize("query", ["conditon == 'list'", "start >", "word + 1"])  # codespell:ignore
def test_filter_that_fails_names_itself_and_the_columns(fif, cache, query):
    recording = FileRecording(fif, cache, words())
    recording.events_filter = query
    with pytest.raises(ValueError, match=r"events_filter=.*Columns: \['kind', 'start'"):
        recording.events()


def test_missing_file_is_named(tmp_path, cache):
    recording = FileRecording(tmp_path / "absent_raw.fif", cache)
    with pytest.raises(DataError, match=r"absent_raw\.fif is missing"):
        recording.preprocessed()
    with pytest.raises(DataError, match=r"cannot read the raw signal.*absent_raw\.fif"):
        recording.raw()


@pytest.mark.parametrize("share", [0.0, 0.002, 0.02, 0.4, 0.99])
def test_truncated_file_is_named_and_leaves_nothing_in_the_cache(fif, cache, share):
    fif.write_bytes(fif.read_bytes()[: int(share * fif.stat().st_size)])
    with pytest.raises(DataError, match=r"mine/01_session0: .*sub-01_raw\.fif") as caught:
        FileRecording(fif, cache).preprocessed()
    assert "truncated or not fully downloaded?" in str(caught.value)
    assert not [path for path in (cache.folder / "signals").iterdir() if path.suffix != ".lock"]


def test_full_disk_during_preprocessing_is_an_error_and_no_crash(fif, small_disk):
    biosemi(noise(32, 400.0)).save(fif, overwrite=True)  # 6 MB once resampled
    recording = FileRecording(fif, Cache(small_disk / "cache"))
    with pytest.raises(OSError, match=r"small_disk/cache: the disk is full"):
        recording.preprocessed(highpass=0.5)
    left = [path.name for path in (small_disk / "cache").rglob("*") if path.is_file()]
    assert all(name.endswith(".lock") for name in left)
