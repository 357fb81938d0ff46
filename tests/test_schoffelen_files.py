"""MOUS: a real recording, signals, triggers and logs; their faults by name."""

import logging
import shutil

import mne
import numpy as np
import pytest
from fixtures.schoffelen import (
    SHIFT,
    TEXTGRID,
    listening,
    pulses_of,
    reading,
    text_of,
    textgrid,
    write_events_file,
    write_listener,
    write_log,
    write_recording,
    write_stimuli,
)

from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.events import create_blocks
from bm.segments.prepare import BlockRule, SignalSettings, prepare
from bm.studies import from_selection
from bm.studies.formats.presentation import read_log
from bm.studies.mous.triggers import Triggers, align

REAL = "testdata_ctf_short_discontinuous"
NUMBERS = [1, 2]


@pytest.fixture
def root(tmp_path):
    """A listener who heard two sentences."""
    write_stimuli(tmp_path, NUMBERS)
    write_listener(tmp_path)
    return tmp_path


def load_all(root, cache, **options):
    return list(from_selection({"study": "schoffelen2019", "path": root, **options}, cache))


def load(root, cache, **options):
    return load_all(root, cache, **options)[0]


def signal_of(root):
    return root / "sub-A2002/meg/sub-A2002_task-auditory_meg.ds"


def copy_real(shared_data, root):
    """Give the real recording the place and the names of a listener's."""
    signal = signal_of(root)
    signal.mkdir(parents=True)
    for file in (shared_data / "ctf" / f"{REAL}.ds").iterdir():
        shutil.copyfile(file, signal / file.name.replace(REAL, signal.stem))
    write_log(root, "A2002-2-MEG-MOUS-Aud.log", listening(NUMBERS))
    return signal


def test_real_recording_is_laid_out_resampled_and_cached(shared_data, tmp_path, cache):
    copy_real(shared_data, tmp_path)
    recording = load(tmp_path, cache)
    raw = recording.raw()
    assert raw.n_times == 2402
    assert len(mne.pick_types(raw.info, meg=True, ref_meg=False)) == 273
    assert len(mne.pick_types(raw.info, meg=True)) == 301
    signal = recording.preprocessed(120.0)
    assert signal.data.shape == (240, 273)
    assert signal.sensors.names[:2] == ["MLC11", "MLC12"]
    places = signal.sensors.positions
    assert (places != NO_POSITION).all()
    assert (places.min(), places.max()) == (0, 1)
    assert np.isfinite(signal.sensors.positions_3d).all()
    course = raw.get_data(["MLC11"], 600, 1800)[0]
    assert np.mean(signal.data[60:180, 0]) == pytest.approx(course.mean(), rel=1e-2)
    assert 1e-14 < np.std(signal.data[:, 0]) < 1e-10  # tesla
    (entry,) = (cache.folder / "signals").glob("schoffelen2019-A2002-*")
    written = (entry / "data.npy").stat().st_mtime_ns
    again = load(tmp_path, cache).preprocessed(120.0)
    np.testing.assert_array_equal(again.data, signal.data)
    assert (entry / "data.npy").stat().st_mtime_ns == written


def test_real_recording_without_triggers_has_no_events(shared_data, tmp_path, cache):
    copy_real(shared_data, tmp_path)
    with pytest.raises(DataError, match=r"_meg\.ds: channel UPPT001 holds no trigger"):
        load(tmp_path, cache).events()


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        (".meg4", lambda content: content[:-4], r"_meg\.meg4 is truncated: 4 of \d+ bytes"),
        (".meg4", lambda content: content[:8], r"_meg\.meg4 is truncated"),
        (".meg4", None, r"_meg\.meg4 is missing\. Download or copy the whole folder"),
        (".res4", lambda content: content[:-1], r"_meg\.res4 is truncated: 1 bytes are missing"),
        (".res4", lambda content: content[:1000], r"_meg\.res4 is truncated: 1000 bytes"),
        (".res4", lambda content: b"<html>", r"_meg\.res4 is no header .* a failed download"),
        (".res4", None, r"_meg\.res4 is missing"),
    ],
)
def test_broken_recording_is_refused_by_the_name_of_its_file(root, cache, file, change, complaint):
    path = signal_of(root) / f"{signal_of(root).stem}{file}"
    content = path.read_bytes()
    path.unlink()
    if change is not None:
        path.write_bytes(change(content))
    recording = load(root, cache)
    with pytest.raises(DataError, match=complaint):
        recording.preprocessed()
    with pytest.raises(DataError, match=complaint):
        recording.events()


def test_other_number_of_sensors_is_logged(root, cache, caplog):
    load(root, cache).raw()
    assert "A2002: expected vs found: sensors 273 vs 4. Likely cause: the recording" in caplog.text


def test_clock_is_found_though_most_triggers_are_missing_or_strange():
    random = np.random.default_rng(3)
    times = np.cumsum(random.uniform(0.3, 9.0, 600))
    codes = random.choice([1, 2, 5, 14, 15, 20], 600)
    truth = 1.0001 * times + 77.7
    kept = random.random(600) < 0.6
    others = random.uniform(0, truth[-1], 300)
    heard = np.concatenate([truth[kept], others])
    what = np.concatenate([codes[kept], random.choice([1, 2, 5, 14, 15, 20], 300)])
    order = np.argsort(heard)
    clock = align(Triggers(times, codes), Triggers(heard[order], what[order]), truth[-1] + 5)
    assert clock is not None
    assert clock.speed == pytest.approx(1.0001, abs=2e-6)
    error = np.abs(clock.seconds(times) - truth)
    assert np.median(error) < 1e-9
    assert error.max() < 0.02


def test_log_of_somebody_else_is_refused(root, cache):
    write_log(root, "A2002-2-MEG-MOUS-Aud.log", listening([706, 205]))
    with pytest.raises(DataError, match=r"triggers \(UPPT001\) don't fit .*A2002-2-MEG-MOUS-Aud"):
        load(root, cache).events()


def test_log_of_the_other_task_is_refused(root, cache):
    lines = reading([3])
    write_log(root, "A2002-2-MEG-MOUS-Aud.log", lines)
    shutil.rmtree(signal_of(root))
    write_recording(root, "A2002", "auditory", pulses_of(lines), n_sensors=4)
    with pytest.raises(DataError, match="no sound was presented by .* the log of this task"):
        load(root, cache).events()


def test_task_of_a_log_is_told_by_its_name_and_not_by_its_folder(tmp_path, cache):
    below = tmp_path / "MEG-MOUS-Vis"
    write_stimuli(below, NUMBERS)
    write_listener(below)
    lines = reading([3])
    write_log(below, "A2002-2-MEG-MOUS-Vis.log", lines)
    assert [log.name for log in load(below, cache).logs] == ["A2002-2-MEG-MOUS-Aud.log"]
    assert set(load(below, cache).events()["modality"]) == {"audio"}


def test_recording_without_log_is_skipped_and_counted(root, cache, caplog):
    write_listener(root, "A2003")
    (root / "sourcedata/meg_task/A2002-2-MEG-MOUS-Aud.log").unlink()
    assert [each.recording_uid for each in load_all(root, cache)] == ["A2003"]
    assert "1 recording(s) absent, 1 used" in caplog.text
    assert "sub-A2002_task-auditory_meg.ds has no log in sourcedata/meg_task" in caplog.text


def test_one_broken_recording_leaves_the_others_alone(root, cache, caplog):
    write_listener(root, "A2003")
    samples = signal_of(root) / f"{signal_of(root).stem}.meg4"
    samples.write_bytes(samples.read_bytes()[:-100])
    ready = prepare(load_all(root, cache), SignalSettings(), BlockRule())
    assert [each.recording.recording_uid for each in ready] == ["A2003"]
    assert "1 recording(s) set aside, 1 used" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("Scenario -", "Scenari", r"line 1: 'Scenari ' *, but a log of Presentation has a line"),
        ("\tCode\t", "\tKode\t", r"line 4: no column 'Code'. Did you mean 'Kode'"),
        ("Event Type", "Typ", r"no line of column names"),
        ("45904\t", "45,904\t", r"line 10, column 'Time': '45,904' is no whole number"),
        ("\t45904", "\tfour", r"line 10, column 'Time': 'four0?' is no whole number"),
    ],
)
def test_malformed_log_is_refused_by_file_and_line(root, old, new, complaint):
    path = root / "sourcedata/meg_task/A2002-2-MEG-MOUS-Aud.log"
    content = path.read_bytes().decode("cp1252").replace(old, new)
    path.write_bytes(content.encode("cp1252"))
    with pytest.raises(DataError, match=rf"A2002-2-MEG-MOUS-Aud\.log.*{complaint}"):
        read_log(path)


def test_log_that_was_cut_off_is_refused_or_logged(root, caplog):
    path = root / "sourcedata/meg_task/A2002-2-MEG-MOUS-Aud.log"
    content = path.read_bytes()
    lines = content.split(b"\r\n")
    path.write_bytes(b"\r\n".join(lines[:10]) + b"\r\nA2002\t6\tNothing\t1 Aud")
    with pytest.raises(DataError, match=r"Aud\.log, line 11: 4 cells, but a Nothing needs at"):
        read_log(path)
    path.write_bytes(b"\r\n".join(lines[:10]))
    (run,) = read_log(path)
    assert list(run["time"]) == [-0.7, -0.65, 1.0498, 3.0664, 4.5904]
    assert "has no second table: was the log cut off?" in caplog.text
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"Aud\.log, line 1: ''"):
        read_log(path)


def test_log_in_another_encoding_is_refused_by_name(tmp_path):
    path = write_log(tmp_path, "V1001-1-MEG-MOUS-Vis.log", reading([209]), encoding="utf-16")
    with pytest.raises(
        DataError, match=r"Vis\.log: not UTF-8 text from line 1 on \(it begins like UTF-16"
    ):
        read_log(path)
    for encoding in ("utf-8", "cp1252"):
        path = write_log(tmp_path, "V1001-1-MEG-MOUS-Vis.log", reading([209]), encoding=encoding)
        assert read_log(path)[0]["code"].str.contains("één").any()


def test_stimuli_without_a_time_are_left_out_and_counted(root, cache, caplog):
    path = root / "sourcedata/meg_task/A2002-2-MEG-MOUS-Aud.log"
    path.write_bytes(path.read_bytes().replace(b"\t45904\t", b"\t\t"))
    events = load(root, cache).events()
    assert list(events["sequence_id"].unique()) == ["2"]
    assert "1 stimuli without a time are left out" in caplog.text


def test_condition_before_the_first_context_is_told_by_the_triggers(tmp_path, cache):
    write_stimuli(tmp_path, [1, 501])
    lines = [line for line in listening([1, 501]) if line.trigger != 10]
    write_log(tmp_path, "A2002-2-MEG-MOUS-Aud.log", lines)
    write_recording(tmp_path, "A2002", "auditory", pulses_of(lines), n_sensors=4)
    words = load(tmp_path, cache).events().query("kind == 'word'")
    conditions = words.groupby("sequence_id")["condition"].unique()
    assert [list(each) for each in conditions] == [["sentence"], ["word_list"]]


def test_published_places_of_an_excerpt_are_reproduced(tmp_path, cache):
    """Triggers 10 at 10 s and 20 at 20 s, though 3.7 s passed in the log, as in an old mock."""
    write_stimuli(tmp_path, [1])
    path = tmp_path / TEXTGRID.format(1)
    path.write_text(textgrid([(0.02, 0.28, text_of(1))], 0.38), encoding="utf-8")
    write_log(tmp_path, "A2002-2-MEG-MOUS-Aud.log", listening([1]))
    pulses = [(10.0, 10), (20.0, 20), (26.0, 15)]
    write_recording(tmp_path, "A2002", "auditory", pulses, n_sensors=4)
    events = load(tmp_path, cache, faithful=True).events()
    assert list(events["kind"]) == ["sound", "word", "phoneme", "phoneme"]
    expected = [21.57, 21.59, 21.590001, 21.720001]
    np.testing.assert_allclose(events["start"], expected, atol=1e-9)
    assert list(create_blocks(events, "sentence_or_sound")["uid"]) == ["1"]
    with pytest.raises(DataError, match="3 triggers .* don't fit"):
        load(tmp_path, cache).events()


def test_triggers_that_were_found_are_logged(root, cache, caplog):
    caplog.set_level(logging.INFO)
    load(root, cache).events()
    assert "A2002-2-MEG-MOUS-Aud.log, line 6: 13 of the 13 triggers" in caplog.text


def test_events_can_come_from_the_authors_table_if_the_log_does_not_fit(root, cache, caplog):
    ours = load(root, cache).events()
    write_events_file(signal_of(root), listening(NUMBERS), SHIFT)
    write_log(root, "A2002-2-MEG-MOUS-Aud.log", listening([706, 205]))
    again = load(root, cache).events()
    np.testing.assert_allclose(again["start"], ours["start"], atol=1 / 1200)
    assert "no log fits its triggers; read from" in caplog.text
