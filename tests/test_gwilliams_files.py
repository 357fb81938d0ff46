"""MEG-MASC: which files are read, what becomes of them, and how faults are named."""

from pathlib import Path

import mne
import numpy as np
import pytest
import soundfile
from fixtures.kit import write_con
from fixtures.masc import event_lines, write_story, write_study

from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.recordings.sound import sound_duration
from bm.segments.prepare import BlockRule, SignalSettings, divide, prepare_one
from bm.studies import from_selection
from bm.studies.formats.kit import check_con
from bm.studies.gwilliams2022 import sound_file


def load(root, cache, **options):
    return next(from_selection({"study": "gwilliams2022", "path": root, **options}, cache))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("stimuli/audio/lw1_0.0.wav", "stimuli/audio/lw1_0.wav"),
        ("stimuli/audio/lw1_0.wav", "stimuli/audio/lw1_0.wav"),
        ("stimuli/audio/The_Black_Willow_11.0.wav", "stimuli/audio/the_black_willow_11.wav"),
    ],
)
def test_sound_file_that_a_line_means(name, file):
    assert sound_file(name) == file


def test_recordings_go_by_subject_session_and_story(tmp_path, cache, caplog):
    for name in ("sub-02/ses-0/meg/sub-02_ses-0_task-1", "sub-01/ses-1/meg/sub-01_ses-1_task-0"):
        write_story(tmp_path, recording=name, n_samples=10)
    write_story(tmp_path, recording="sub-01/ses-0/meg/sub-01_ses-0_task-3", n_samples=10)
    (tmp_path / "participants.tsv").write_text(
        "\ufeffparticipant_id\tage\nsub-02\t1\nsub-01\t2\nsub-03\t3\n"
    )
    found = list(from_selection({"study": "gwilliams2022", "path": tmp_path}, cache))
    assert [each.recording_uid for each in found] == [
        "02_session0_story1",
        "01_session0_story3",
        "01_session1_story0",
    ]
    assert [each.subject_uid for each in found] == ["02", "01", "01"]
    assert [each.session for each in found] == ["0", "0", "1"]
    assert "17 recording(s) absent, 3 used" in caplog.text  # 03 never had a second session


def test_subjects_can_be_chosen_and_a_wrong_one_is_refused(tmp_path, cache):
    for subject in ("01", "02"):
        name = f"sub-{subject}/ses-0/meg/sub-{subject}_ses-0_task-0"
        write_story(tmp_path, recording=name, n_samples=10)
    for chosen in (["02"], "02", [2], ["sub-02"]):
        assert load(tmp_path, cache, subjects=chosen).subject_uid == "02"
    with pytest.raises(ValueError, match=r"subject='3' does not exist.*Allowed: 01, 02"):
        load(tmp_path, cache, subjects=["3"])


def test_tree_below_a_folder_called_download_is_found(tmp_path, cache):
    write_story(tmp_path / "download", n_samples=10)
    assert load(tmp_path, cache).recording_uid == "01_session0_story0"


def test_empty_folder_is_an_error_that_says_what_is_expected(tmp_path, cache):
    with pytest.raises(DataError, match=r"task-0_meg\.con.*downloads\.md.*default\.gwilliams2022="):
        load(tmp_path, cache)


def test_signal_has_208_sensors_with_positions(tmp_path, cache):
    write_story(tmp_path)
    recording = load(tmp_path, cache)
    raw = recording.raw()
    assert len(mne.pick_types(raw.info, meg=True, ref_meg=False)) == 208
    assert len(mne.pick_types(raw.info, meg=False, ref_meg=True)) == 16
    assert raw.ch_names[:224] == [f"MEG {number:03d}" for number in range(1, 225)]
    assert raw.ch_names[224:256] == [f"MISC {number:03d}" for number in range(1, 33)]
    signal = recording.preprocessed(120.0)
    assert signal.data.shape == (1200, 208)
    assert signal.sensors.names == raw.ch_names[:208]
    assert (signal.sensors.positions != NO_POSITION).all()
    assert signal.sensors.positions.min() == 0
    assert signal.sensors.positions.max() == 1
    expected = raw.get_data([3], 4800, 5200).mean()
    assert np.mean(signal.data[576:624, 3]) == pytest.approx(expected, abs=1e-13)


def test_events_of_a_recording(tmp_path, cache):
    write_story(tmp_path)
    events = load(tmp_path, cache).events()
    words = events[events["kind"] == "word"]
    assert list(words["word"]) == ["Tara", "stood", "still", "None", "of", "them", "came"]
    assert list(words["start"]) == [2.0, 2.5, 3.0, 4.5, 5.0, 5.5, 6.0]
    assert list(words["word_index"]) == [0, 1, 2, 0, 1, 2, 3]
    assert list(words["sequence_id"]) == ["0"] * 3 + ["1"] * 4
    assert words["word_sequence"].iloc[-1] == "None of them came"
    assert set(events["language"]) == {"en"}
    assert set(events["modality"]) == {"audio"}


def test_sound_lasts_as_long_as_its_file(tmp_path, cache):
    write_story(tmp_path)
    (tmp_path / "stimuli" / "audio").mkdir(parents=True)
    wav = tmp_path / "stimuli" / "audio" / "lw1_0.wav"
    soundfile.write(wav, np.zeros(6 * 22_050), 22_050)
    sound = load(tmp_path, cache).events().query("kind == 'sound'").iloc[0]
    assert (sound["start"], sound["duration"], sound["offset"]) == (2.0, 6.0, 0.0)
    assert sound["filepath"] == str(wav)
    assert sound_duration(sound["filepath"]) == 6.0


def test_sound_whose_file_is_missing_lasts_until_its_last_word_and_is_logged(
    tmp_path, cache, caplog
):
    write_story(tmp_path)
    sound = load(tmp_path, cache).events().query("kind == 'sound'").iloc[0]
    assert sound["duration"] == 4.5
    assert caplog.text.count("lw1_0.wav") == 1
    assert "has no features" in caplog.text


def test_sound_file_that_arrives_later_is_used(tmp_path, cache):
    write_story(tmp_path)
    load(tmp_path, cache).events()
    (tmp_path / "stimuli" / "audio").mkdir(parents=True)
    soundfile.write(tmp_path / "stimuli" / "audio" / "lw1_0.wav", np.zeros(5 * 22_050), 22_050)
    assert load(tmp_path, cache).events().query("kind == 'sound'")["duration"].item() == 5.0


def test_training_without_the_sound_file_is_refused_by_its_name(tmp_path, cache):
    write_story(tmp_path)
    with pytest.raises(DataError, match=r"lw1_0\.wav is missing"):
        prepare_one(load(tmp_path, cache), SignalSettings(), BlockRule())


def test_sound_file_shorter_than_its_words_is_refused(tmp_path, cache):
    write_story(tmp_path)
    (tmp_path / "stimuli" / "audio").mkdir(parents=True)
    soundfile.write(tmp_path / "stimuli" / "audio" / "lw1_0.wav", np.zeros(22_050), 22_050)
    with pytest.raises(DataError, match=r"lw1_0\.wav lasts 1\.000 s.*up to 4\.500 s"):
        load(tmp_path, cache).events()


def test_truncated_signal_is_refused_by_name(tmp_path, cache):
    signal, _ = write_story(tmp_path)
    signal.write_bytes(signal.read_bytes()[:-512])
    recording = load(tmp_path, cache)
    with pytest.raises(DataError, match=r"task-0_meg\.con is truncated: 512 of 5120000 bytes"):
        recording.raw()
    with pytest.raises(DataError, match="truncated"):
        recording.events()
    signal.write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"task-0_meg\.con is truncated, or no KIT file"):
        recording.raw()


def test_whole_kit_files_of_other_laboratories_pass_the_check(shared_data, tmp_path):
    for file in (shared_data / "kit").glob("*.con"):
        check_con(file)
        cut = tmp_path / file.name
        cut.write_bytes(file.read_bytes()[:100_000])
        with pytest.raises(DataError, match="truncated"):
            check_con(cut)


@pytest.mark.parametrize(
    ("name", "n_sensors", "n_samples"),
    [("MQKIT_125_2sec.con", 125, 240), ("test_as-raw.con", 157, 24)],
)
def test_real_recording_is_laid_out_resampled_and_cached(
    shared_data, tmp_path, cache, name, n_sensors, n_samples
):
    signal, _ = write_story(tmp_path, n_samples=10)
    signal.unlink()
    signal.symlink_to(shared_data / "kit" / name)
    recording = load(tmp_path, cache)
    raw = recording.raw().pick("mag")
    resampled = recording.preprocessed(120.0)
    assert resampled.data.shape == (n_samples, n_sensors)
    assert resampled.sensors.names == raw.ch_names
    assert (resampled.sensors.positions != NO_POSITION).all()
    assert (resampled.sensors.positions.min(), resampled.sensors.positions.max()) == (0, 1)
    np.testing.assert_allclose(
        resampled.data.mean(axis=0), raw.get_data().mean(axis=1), rtol=1e-2, atol=3e-14
    )
    (entry,) = (cache.folder / "signals").glob("gwilliams2022-*")
    written = (entry / "data.npy").stat().st_mtime_ns
    np.testing.assert_array_equal(load(tmp_path, cache).preprocessed(120.0).data, resampled.data)
    assert (entry / "data.npy").stat().st_mtime_ns == written


def test_events_outside_the_signal_are_dropped_and_counted(tmp_path, cache, caplog):
    write_story(tmp_path, n_samples=5_000)
    events = load(tmp_path, cache).events()
    assert list(events[events["kind"] == "word"]["word"]) == ["Tara", "stood", "still", "None"]
    assert "6 event(s) outside the recording's 5.000 s dropped" in caplog.text


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ("{'kind': 'word', 'word': 'x'", r"line 17, column 'trial_type': .*no dictionary"),
        ("['kind']", r"line 17, column 'trial_type': .*no dictionary"),
        ("{'story': 'lw1'}", r"line 17, column 'trial_type': .*no dictionary with a 'kind'"),
        ("__import__('os').abort()", r"line 17, column 'trial_type': .*no dictionary"),
        ("n/a", r"line 17, column 'trial_type': 'None' is no dictionary"),
        ("{'kind': 'cough'}", r"line 17, column 'kind': 'cough' is none of sound, word"),
        ("{'kind': 'word', 'sequence_id': 1.0}", r"line 17, column 'word': a word without it"),
        ("{'kind': 'sound'}", r"line 17, column 'sound': a sound without it"),
    ],
)
def test_line_that_makes_no_sense_is_named(tmp_path, cache, cell, complaint):
    write_story(tmp_path, [*event_lines(), f"9.0\t0.1\t{cell}\t1\t9000"])
    with pytest.raises(DataError, match=rf"task-0_events\.tsv, {complaint}"):
        load(tmp_path, cache).events()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("x\t0.1\t{'kind': 'word'}\t1\t9000", r"line 17.*'onset': 'x' is not a number"),
        ("9.0\t-1\t{'kind': 'word'}\t1\t9000", r"line 17.*'duration': '-1' is not a number from 0"),
        ("n/a\t0.1\t{'kind': 'word'}\t1\t9000", r"line 17.*'onset': the cell is empty"),
        ("9.0\t0.1\t{'kind': 'word'}", r"line 17: 3 cells, but the header has 5"),
    ],
)
def test_numbers_and_cells_that_are_wrong_are_named(tmp_path, cache, line, complaint):
    line = line.replace("{'kind': 'word'}", event_lines()[2].split("\t")[2])
    write_story(tmp_path, [*event_lines(), line])
    with pytest.raises(DataError, match=rf"task-0_events\.tsv, {complaint}"):
        load(tmp_path, cache).events()


def test_missing_column_is_named(tmp_path, cache):
    _, events = write_story(tmp_path)
    events.write_text(events.read_text(encoding="utf-8-sig").replace("trial_type", "trial_typ"))
    message = r"task-0_events\.tsv: no column 'trial_type'. Did you mean 'trial_typ'"
    with pytest.raises(DataError, match=message):
        load(tmp_path, cache).events()


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "Latin-1"), ("utf-16", "UTF-16")])
def test_wrong_encoding_is_named(tmp_path, cache, encoding, name):
    lines = [line.replace("stood", "stöd") for line in event_lines()]
    write_story(tmp_path, lines, encoding=encoding)
    with pytest.raises(DataError, match=rf"task-0_events\.tsv, line .*not UTF-8 \(perhaps {name}"):
        load(tmp_path, cache).events()


def test_one_broken_recording_leaves_the_others_alone(tmp_path, cache):
    for task in "01":
        write_story(tmp_path, recording=f"sub-01/ses-0/meg/sub-01_ses-0_task-{task}")
    broken = tmp_path / "sub-01/ses-0/meg/sub-01_ses-0_task-0_meg.con"
    write_con(broken, 0)
    first, second = from_selection({"study": "gwilliams2022", "path": tmp_path}, cache)
    with pytest.raises(DataError, match=r"task-0_meg\.con has no samples"):
        first.events()
    assert len(second.events()) == 15


def test_language_is_as_published_on_request(tmp_path, cache):
    write_story(tmp_path)
    assert set(load(tmp_path, cache).events()["language"]) == {"en"}
    assert set(load(tmp_path, cache, faithful=True).events()["language"]) == {"english"}


def test_difference_from_the_known_counts_is_a_warning_with_its_likely_cause(
    tmp_path, cache, caplog
):
    write_story(tmp_path)
    load(tmp_path, cache).events()
    assert "expected vs found: subjects 27 vs 1; recordings 192 to 196 vs 1" in caplog.text
    assert "Likely cause: the events file is incomplete or was edited" in caplog.text


def test_miniature_gives_everybody_the_same_words_and_splits(tmp_path, cache, caplog):
    sentences = write_study(tmp_path)
    recordings = list(from_selection({"study": "gwilliams2022", "path": tmp_path}, cache))
    names = ["01_session0_story0", "01_session0_story3", "02_session0_story0"]
    assert [each.recording_uid for each in recordings] == names
    assert "subjects 27 vs 2; recordings 192 to 196 vs 3" in caplog.text
    tables = [each.events() for each in recordings]
    for events in tables:
        words = events[events["kind"] == "word"]
        said = [word.removeprefix("~") for words in sentences for word in words if word]
        assert list(words["word"]) == said
        assert {"None", "It s", "Vera's"} <= set(said)
        assert list(words["word_index"][words["sequence_id"] == "2"][3:6]) == [3, 3, 4]
        assert words["word_index"][words["sequence_id"] == "3"].min() == 1
        (sound,) = events[events["kind"] == "sound"].itertuples()
        assert Path(sound.filepath).exists()
    blocks = [divide(each, BlockRule()) for each in recordings]
    assert set(blocks[0]["split"]) == {"test", "valid", "train"}
    assert len(blocks[0]) == 7  # a sentence without its first word goes with the one before
    for other in blocks[1:]:
        assert list(other["uid"]) == list(blocks[0]["uid"])
