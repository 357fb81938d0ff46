"""BIDS datasets of other makers of machines, and real recordings written as BIDS."""

import mne
import mne_bids
import numpy as np
import pytest
from fixtures.bids import write_events, write_study, write_telluride
from fixtures.kit import write_con

from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.studies import from_selection

MEG_SIGNAL = "sub-02/meg/sub-02_task-listen_meg.fif"


def load(folder, cache, **options):
    return list(from_selection({"study": "bids", "root": str(folder), **options}, cache))


def test_long_fif_in_parts_is_one_recording(tmp_path, cache):
    study = tmp_path / "my_study"
    write_study(study)
    path = mne_bids.get_bids_path_from_fname(study / MEG_SIGNAL)
    raw = mne.io.read_raw(study / MEG_SIGNAL, preload=True)
    (study / MEG_SIGNAL).unlink()
    raw.save(path.fpath, split_size="2MB", split_naming="bids", overwrite=True)
    parts = list((study / "sub-02" / "meg").glob("*split-*.fif"))
    assert len(parts) > 1
    (recording,) = load(study, cache, subjects="02")
    assert recording.recording_uid == "sub-02_task-listen_meg"
    assert recording.raw().n_times == raw.n_times
    assert set(parts) < set(recording.source_files())


def test_kit_recording_in_bids(tmp_path, cache):
    folder = tmp_path / "sub-01" / "meg"
    folder.mkdir(parents=True)
    signal = folder / "sub-01_task-a_meg.con"
    write_con(signal, 4000, n_others=8)
    names = [(f"MEG {i:03d}", "MEGGRADAXIAL" if i < 209 else "MEGREFMAG") for i in range(1, 225)]
    names += [(f"MISC {i:03d}", "MISC") for i in range(1, 9)]
    bad = "MEG 007"
    rows = [f"{name}\t{kind}\tT\t{'bad' if name == bad else 'good'}" for name, kind in names]
    table = "\n".join(["name\ttype\tunits\tstatus", *rows])
    (folder / "sub-01_task-a_channels.tsv").write_text(table, encoding="utf-8-sig")
    write_events(folder / "sub-01_task-a_events.tsv", [(1.0, 0.5, "word", "n/a", "None", "1")])
    (recording,) = load(tmp_path, cache)
    sensors = recording.preprocessed().sensors
    assert len(sensors.names) == 208
    assert [name for name, place in zip(sensors.names, sensors.positions[:, 0], strict=True)
            if place == NO_POSITION] == [bad]  # fmt: skip
    assert list(recording.events()["word"]) == ["None"]
    signal.write_bytes(signal.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"meg\.con is truncated"):
        recording.raw()


def test_real_ctf_recording_in_bids_has_all_positions(shared_data, tmp_path, cache):
    (source,) = (shared_data / "ctf").glob("*.ds")
    raw = mne.io.read_raw_ctf(source)
    path = mne_bids.BIDSPath(subject="01", task="rest", datatype="meg", root=tmp_path)
    mne_bids.write_raw_bids(raw, path, verbose="error")
    events = path.copy().update(suffix="events", extension=".tsv")
    write_events(events.fpath, [(0.5, 0.5, "word", "n/a", "None", "1")])
    (recording,) = load(tmp_path, cache)
    signal = recording.preprocessed(120.0)
    assert signal.data.shape == (240, 273)  # the 8 EEG channels beside them are left out
    assert (signal.sensors.positions != NO_POSITION).all()
    assert len(recording.source_files()) > 5


def test_real_meg_as_bids_loads_and_yields_its_events(shared_data, tmp_path, cache):
    source = shared_data / "telluride_meg"
    write_telluride(tmp_path / "telluride", source)
    (recording,) = load(tmp_path / "telluride", cache)
    written = np.load(source / "subj01.npz")
    signal = recording.preprocessed(100.0)
    np.testing.assert_allclose(signal.data, written["meg"] * 1e-15, rtol=1e-5)
    assert (signal.sensors.positions != NO_POSITION).all()
    events = recording.events()
    assert events["kind"].value_counts().to_dict() == {"phoneme": 178, "word": 13, "sound": 3}
    sounds = events[events["kind"] == "sound"]
    np.testing.assert_allclose(sounds["duration"], 3.1488, atol=1e-3)
    heard = np.zeros((1001, 38), dtype=np.float32)
    for phoneme in events[events["kind"] == "phoneme"].itertuples():
        first, length = round(phoneme.start * 100), round(phoneme.duration * 100)
        heard[first : first + length, int(phoneme.phoneme)] = 1
    silent = ~written["phonemes"].any(axis=1)
    np.testing.assert_array_equal(heard[~silent], written["phonemes"][~silent])
