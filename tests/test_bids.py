"""Any BIDS dataset: the guide's example loads as it says, what is incomplete or broken is named."""

import logging
import re
import shlex
import shutil

import numpy as np
import pytest
import soundfile
import yaml
from fixtures.bids import BAD_EEG, SENTENCES, write_events, write_study

from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.segments.prepare import BlockRule, SignalSettings, prepare
from bm.studies import from_selection

EEG_EVENTS = "sub-01/eeg/sub-01_task-listen_events.tsv"
MEG_EVENTS = "sub-02/meg/sub-02_task-listen_events.tsv"
MEG_SIGNAL = "sub-02/meg/sub-02_task-listen_meg.fif"


@pytest.fixture(scope="module")
def example(root, tmp_path_factory):
    """The dataset of docs/your-own-data.md, with real speech where there is some."""
    speech = root.parent / "shared" / "data" / "librivox"
    folder = tmp_path_factory.mktemp("data") / "my_study"
    write_study(folder, speech if speech.is_dir() else None)
    return folder


@pytest.fixture
def study(example, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(example, tmp_path / "my_study")


@pytest.fixture(scope="module")
def guide(root):
    return (root / "docs" / "your-own-data.md").read_text(encoding="utf-8")


def load(folder, cache, **options):
    return list(from_selection({"study": "bids", "root": str(folder), **options}, cache))


def fenced(guide, language, contains):
    """The block of code in the guide that contains a text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    return next(text for kind, text in blocks if kind == language and contains in text)


def test_guide_shows_the_tree_that_is_written(example, guide):
    names = set(re.findall(r"[\w.-]+$", fenced(guide, "", "├── stimuli"), re.MULTILINE))
    written = {path.name for path in example.rglob("*")}
    assert names - written == {"my_study", "..."}
    extra = {"README", "participants.json", "sub-01_space-CapTrak_electrodes.json"}
    extra |= {"sub-01_scans.tsv", "sub-02_scans.tsv"}
    assert {name for name in written - names if not name.startswith("sentence_")} == extra


def test_guide_shows_the_events_that_are_written(example, guide):
    lines = fenced(guide, "tsv", "onset").splitlines()
    assert (example / EEG_EVENTS).read_text(encoding="utf-8").splitlines()[: len(lines)] == lines


def test_guide_selections_load_the_example(example, guide, cache, caplog):
    caplog.set_level(logging.INFO)
    selection = yaml.safe_load(fenced(guide, "yaml", "task: listen"))["my_study"]
    recordings = list(from_selection({**selection, "root": str(example)}, cache))
    prepared = prepare(recordings, SignalSettings(), BlockRule(), on_bad_recording="error")
    assert len(prepared) == 2
    for line in fenced(guide, "", "[bm.studies.bids]").splitlines():
        message = line.split("] ", 1)[1].replace("/data/my_study", str(example))
        assert message in caplog.messages


def test_guide_yaml_and_command_line_reach_the_configuration(root, guide, tmp_path):
    hydra = pytest.importorskip("hydra")
    conf = shutil.copytree(root / "conf", tmp_path / "conf")
    block = fenced(guide, "yaml", "task: listen")
    (conf / "selections" / "my_study.yaml").write_text(block)
    commands = re.findall(r"^dora run (.*selections.*my_study\].*)$", guide, re.MULTILINE)
    assert len(commands) == 2
    for overrides in map(shlex.split, commands):
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            config = hydra.compose("config", overrides=overrides)
        assert list(config.dset.selections) == ["my_study"]
        expected = {"study": "bids", "root": "/data/my_study", "task": "listen"}
        assert expected.items() <= dict(config.selections.my_study).items()
        assert "gwilliams2022" in config.selections


def test_recordings_of_the_example(example, cache):
    eeg, meg = load(example, cache)
    assert [eeg.recording_uid, meg.recording_uid] == [
        "sub-01_task-listen_eeg",
        "sub-02_task-listen_meg",
    ]
    assert [eeg.subject_uid, meg.subject_uid] == ["01", "02"]
    assert eeg.study == meg.study == "bids-my_study"
    words = eeg.events().query("kind == 'word'")
    assert list(words["word_sequence"].unique()) == list(SENTENCES.values())
    assert list(words["word_index"][:9]) == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    sounds = eeg.events().query("kind == 'sound'")
    for sound in sounds.itertuples():
        assert sound.duration == pytest.approx(soundfile.info(sound.filepath).duration, abs=6e-4)
    columns = ["kind", "start", "duration", "word", "filepath"]
    assert eeg.events()[columns].equals(meg.events()[columns])


def test_signals_of_the_example_are_in_volts_and_tesla_and_have_positions(example, cache):
    eeg, meg = load(example, cache)
    for recording, unit, n_sensors in ((eeg, 1e-5, 17), (meg, 1e-13, 34)):
        raw = recording.raw()
        assert np.median(raw.get_data().std(axis=1)) == pytest.approx(unit, rel=0.1)
        signal = recording.preprocessed(100.0)
        assert signal.data.shape == (raw.n_times * 100 // 250, n_sensors)
        unplaced = signal.sensors.positions[:, 0] == NO_POSITION
        names = np.array(signal.sensors.names)[unplaced]
        assert list(names) == ([BAD_EEG] if recording is eeg else [])


def test_bad_channels_are_masked_or_kept_as_chosen(example, cache, caplog):
    masked = load(example, cache, subjects="01")[0].preprocessed()
    kept = load(example, cache, subjects="01", bad_channels="keep")[0].preprocessed()
    bad = masked.sensors.names.index(BAD_EEG)
    assert not masked.data[:, bad].any()
    assert kept.data[:, bad].any()
    assert kept.sensors.positions[bad, 0] != NO_POSITION
    others = np.arange(17) != bad
    np.testing.assert_array_equal(masked.data[:, others], kept.data[:, others])
    assert f"1 of 17 sensors are marked bad and are left out: {BAD_EEG}" in caplog.text


def test_same_sentence_lands_in_the_same_split_for_both(example, cache):
    eeg, meg = prepare(load(example, cache), SignalSettings(100.0), BlockRule())
    assert eeg.blocks[["start", "uid", "split"]].equals(meg.blocks[["start", "uid", "split"]])
    assert eeg.blocks["split"].value_counts().to_dict() == {"train": 6, "test": 4, "valid": 2}


@pytest.mark.parametrize(
    ("options", "subjects"),
    [
        ({"subjects": ["02"]}, ["02"]),
        ({"subjects": "sub-02"}, ["02"]),
        ({"subjects": [1, 2]}, ["01", "02"]),  # as YAML reads 01
        ({"datatype": "eeg"}, ["01"]),
        ({"task": "listen"}, ["01", "02"]),
    ],
)
def test_filters_choose_recordings(example, cache, options, subjects):
    assert [each.subject_uid for each in load(example, cache, **options)] == subjects


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subjects": ["03"]}, r"there is no subject '03'\. Allowed: 01, 02"),
        ({"task": "listn"}, r"there is no task 'listn'\. Did you mean 'listen'"),
        ({"datatype": "mge"}, r"datatype='mge' does not exist\. Did you mean 'meg'"),
        ({"block_rule": "sentences"}, r"Did you mean 'sentence'"),
        ({"columns": {"words": "x"}}, r"columns='words' does not exist\. Did you mean 'word'"),
        ({"montage": "biosemi"}, r"montage='biosemi' does not exist"),
        ({"bad_channels": "drop"}, r"bad_channels='drop' does not exist"),
        ({"stimulus": "x"}, r"no option 'stimulus'\. Did you mean 'stimuli'"),
        ({"path": "/elsewhere"}, r"path='/elsewhere' and root='.*' differ"),
    ],
)
def test_option_that_makes_no_sense_is_refused_with_what_is_allowed(
    example, cache, options, message
):
    with pytest.raises(ValueError, match=message):
        load(example, cache, **options)


def test_path_is_another_name_for_root(example, cache):
    assert len(list(from_selection({"study": "bids", "path": str(example)}, cache))) == 2
    with pytest.raises(ValueError, match=r"selections\.bids\.root="):
        next(from_selection({"study": "bids"}, cache))
    with pytest.raises(DataError, match="There is no BIDS dataset /nowhere"):
        next(from_selection({"study": "bids", "root": "/nowhere"}, cache))


def test_incomplete_recordings_are_skipped_counted_and_logged(study, cache, caplog):
    for number in ("03", "04", "05"):
        shutil.copytree(study / "sub-02", study / f"sub-{number}")
        for path in list((study / f"sub-{number}").rglob("sub-02*")):
            path.rename(path.with_name(path.name.replace("sub-02", f"sub-{number}")))
    (study / "sub-03/meg/sub-03_task-listen_meg.fif").unlink()
    (study / "sub-04/meg/sub-04_task-listen_events.tsv").unlink()
    link = study / "sub-05/meg/sub-05_task-listen_meg.fif"
    link.unlink()
    link.symlink_to(".git/annex/objects/absent.fif")
    assert [each.subject_uid for each in load(study, cache)] == ["01", "02"]
    assert "3 recording(s) skipped" in caplog.text
    assert "sub-03_task-listen has events, but no signal" in caplog.text
    assert "sub-04_task-listen_meg.fif has no *_events.tsv" in caplog.text
    assert "sub-05_task-listen was not downloaded (git annex: datalad get)" in caplog.text


def test_dataset_without_any_events_is_an_error(study, cache):
    for events in study.rglob("*_events.tsv"):
        events.unlink()
    with pytest.raises(DataError, match=r"no meg or eeg recording.*2 recording\(s\), 0 event"):
        load(study, cache)


def test_one_broken_recording_leaves_the_others_alone(study, cache, caplog):
    (study / EEG_EVENTS).write_text("onset\tduration\n1.0\tlong\n")
    prepared = prepare(load(study, cache), SignalSettings(100.0), BlockRule())
    assert [each.recording.subject_uid for each in prepared] == ["02"]
    assert "line 2, column 'duration': 'long' is not a number" in caplog.text
    assert "1 recording(s) set aside, 1 used" in caplog.text


@pytest.mark.parametrize("name", ["sub-01/eeg/sub-01_task-listen_eeg.eeg", MEG_SIGNAL])
def test_truncated_signal_is_refused_by_name(study, cache, name):
    file = study / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    recording = load(study, cache, subjects=name[4:6])[0]
    with pytest.raises(DataError, match=rf"{file.stem}\.\w+ is truncated.*says 109\.[67]"):
        recording.raw()


def test_fault_in_the_events_is_not_called_one_of_the_signal(study, cache):
    (study / MEG_EVENTS).write_text("start\tduration\n1.0\t0\n")
    with pytest.raises(DataError, match=r"_events\.tsv: no column 'onset'.*Allowed: dur"):
        load(study, cache, subjects="02")[0].raw()


def test_events_outside_the_recording_are_dropped_and_counted(study, cache, caplog):
    with open(study / MEG_EVENTS, "a") as file:
        file.write("300.0\t0.2\tword\tn/a\tafter\t24\n-1.0\t0.2\tword\tn/a\tbefore\t01\n")
    events = load(study, cache, subjects="02")[0].events()
    assert not set(events["word"]) & {"after", "before"}
    assert "2 event(s) outside the recording's 109." in caplog.text


def test_onsets_in_milliseconds_are_found_out(study, cache):
    rows = [(2000.0, 200.0, "word", "n/a", "he", "01"), (3000.0, 200.0, "word", "n/a", "was", "01")]
    write_events(study / MEG_EVENTS, rows)
    with pytest.raises(DataError, match=r"all 2 events lie outside .* in seconds from its first"):
        load(study, cache, subjects="02")[0].events()


def test_corrected_events_are_read_anew_and_the_signal_is_not(study, cache):
    recording = load(study, cache, subjects="02")[0]
    recording.preprocessed()
    before = recording.events()
    text = (study / MEG_EVENTS).read_text().replace("\the\t", "\tHe\t")
    (study / MEG_EVENTS).write_text(text)
    recording = load(study, cache, subjects="02")[0]
    assert (recording.events()["word"] == "He").sum() == (before["word"] == "he").sum() > 5
    recording.preprocessed()
    assert len(list((cache.folder / "signals").glob("bids*"))) == 1


def test_replaced_sound_gives_a_new_duration(study, cache):
    text = (study / MEG_EVENTS).read_text()
    (study / MEG_EVENTS).write_text(text.replace("2.000\t2.990", "2.000\tn/a"))
    first = load(study, cache, subjects="02")[0].events()["duration"].iloc[0]
    soundfile.write(study / "stimuli" / "sentence_01.wav", np.zeros(40_000), 16_000)
    second = load(study, cache, subjects="02")[0].events()["duration"].iloc[0]
    assert (first, second) == (2.99, 2.5)


def test_electrodes_without_positions_get_those_of_a_montage(study, cache, caplog):
    for file in study.rglob("*space-CapTrak*"):
        file.unlink()
    without = load(study, cache, subjects="01")[0].preprocessed()
    assert (without.sensors.positions == NO_POSITION).all()
    assert "17 of 17 sensors have no position" in caplog.text
    placed = load(study, cache, subjects="01", montage="colin27_1020")[0].preprocessed()
    assert (placed.sensors.positions[:, 0] != NO_POSITION).sum() == 16  # all but the bad one


def test_events_can_be_filtered_by_a_column_of_the_users_own(study, cache):
    lines = (study / MEG_EVENTS).read_text().splitlines()
    lines = [
        f"{line}\t{'ear' if not i else 'left' if i < 20 else 'right'}"
        for i, line in enumerate(lines)
    ]
    (study / MEG_EVENTS).write_text("\n".join(lines))
    recording = load(study, cache, subjects="02", events_filter='ear == "left"')[0]
    events = recording.events()
    assert (events["kind"] == "word").sum() == 17
    assert (events["kind"] == "sound").sum() == 2


def test_two_datasets_have_different_people(example, study, cache):
    first = load(example, cache)[0]
    second = load(study, cache, dataset="other")[0]
    assert (first.study, second.study) == ("bids-my_study", "bids-other")
