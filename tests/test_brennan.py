"""Alice in miniature: signals, words and sentences, in both releases and as published."""

import logging

import mne
import numpy as np
import pybv
import pytest
import scipy.io
import soundfile
from alice_events import split_of_words, words_of
from fixtures import brennan

from bm.build import build_recordings
from bm.core.cache import Cache
from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.evaluation.alignment import MISALIGNED, OK, check_alignment, table_row
from bm.events.blocks import SPLITS
from bm.segments.prepare import BlockRule, SignalSettings, prepare
from bm.segments.windows import WindowRule, find_windows
from bm.studies import from_selection
from bm.studies.brennan2019 import Brennan2019
from bm.studies.expected import Tally, compare
from scripts.options import compose

MINIATURE = ["S01", "S02", "S05", "S08", "S24", "S37"]


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """A small study with all its traps: root, lines of the story, and a cache that fills up."""
    root = tmp_path_factory.mktemp("miniature")
    return root, brennan.write_study(root), Cache(root / "cache")


@pytest.fixture
def small(tmp_path):
    """S01 alone, without signal in it: root, lines of the story, trials."""
    return tmp_path, *brennan.write_one(tmp_path)


def selection(root, **options):
    return {"study": "brennan2019", "path": root, **options}


def load(root, cache, **options):
    return next(from_selection(selection(root, **options), cache))


def test_recordings_are_those_with_signal_and_trials(miniature, caplog):
    root, _, cache = miniature
    found = list(from_selection(selection(root), cache))
    assert [each.recording_uid for each in found] == MINIATURE
    assert [each.subject_uid for each in found] == MINIATURE
    assert "1 recording(s) without a table of trials" in caplog.text
    assert "S28" in caplog.text
    assert "recordings 42 vs 6" in caplog.text


def test_miniature_gives_segments_in_all_splits(miniature):
    root, lines, cache = miniature
    prepared = prepare(from_selection(selection(root), cache), SignalSettings(), BlockRule())
    assert [item.recording.subject_uid for item in prepared] == MINIATURE
    for item in prepared:
        n_words = (
            sum(line["Segment"] > 1 for line in lines)
            if str(item.recording).endswith("S24")
            else len(lines)
        )
        assert len(words_of(item.events)) == n_words
        for split in SPLITS:
            rule = WindowRule(condition="word" if split == "test" else 0.5)
            blocks = item.blocks[item.blocks["split"] == split]
            windows = find_windows(item.events, blocks, rule, item.signal.n_samples, 120.0)
            assert len(windows) >= 5, (item.recording, split)


def test_miniature_has_the_same_words_for_all_at_their_own_times(miniature):
    root, lines, cache = miniature
    events = {each.subject_uid: each.events() for each in from_selection(selection(root), cache)}
    reference = words_of(events["S01"])
    assert [line["Word"].replace("\x1a", "'") for line in lines] == list(reference["word"])
    for label, trigger in (("S01", 1864), ("S02", 664), ("S05", 900), ("S08", 1201), ("S37", 30)):
        words = words_of(events[label])
        assert list(words["word_sequence"]) == list(reference["word_sequence"])
        assert words["start"].iloc[0] == pytest.approx(trigger / 500 + lines[0]["onset"], abs=2e-3)
        delays = words["start"].to_numpy() - reference["start"].to_numpy()
        np.testing.assert_allclose(delays, (trigger - 1864) / 500, atol=1e-6)
    part = words_of(events["S24"])
    later = reference[reference["segment"] > 1]
    assert list(part["word"]) == list(later["word"])
    delays = part["start"].to_numpy() - later["start"].to_numpy()
    np.testing.assert_allclose(delays, (-300 - 1864) / 500, atol=2e-3)
    complete, splits = split_of_words(events["S01"]), split_of_words(events["S24"])
    assert {key: complete[key] for key in splits} == splits
    complete, splits = (split_of_words(events[one], True) for one in ("S01", "S24"))
    assert len(splits) == len(part) - 9  # the rest of a sentence that began in the lost sound
    assert {key: complete[key] for key in splits} == splits


def test_faithful_miniature_is_300_ms_early(miniature):
    root, _, cache = miniature
    right = {each.subject_uid: each.events() for each in from_selection(selection(root), cache)}
    early = {
        each.subject_uid: each.events()
        for each in from_selection(selection(root, faithful=True), cache)
    }
    assert list(early) == ["S01", "S05", "S08", "S37"]
    delays = words_of(right["S08"])["start"].to_numpy() - words_of(early["S08"])["start"].to_numpy()
    np.testing.assert_allclose(delays, 0.3, atol=1e-6)


def test_faithful_can_be_set_on_the_command_line(miniature):
    root, _, cache = miniature
    places = [f"study_paths.default.brennan2019={root}", f"cache={cache.folder}"]
    names = {
        value: [
            each.subject_uid
            for each in build_recordings(
                compose(["brennan2019"], [*places, f"selections.brennan2019.faithful={value}"])
            )
        ]
        for value in ("true", "false")
    }
    assert names == {"true": ["S01", "S05", "S08", "S37"], "false": MINIATURE}


def test_sentences_go_on_over_the_border_of_two_sounds(miniature):
    root, _, cache = miniature
    words = words_of(load(root, cache).events())
    over = words.groupby("sequence_id")["segment"].nunique()
    assert list(over[over > 1].index) == ["8"]
    sentence = words[words["sequence_id"] == "8"]
    assert list(sentence["word_index"]) == list(range(len(sentence)))
    assert set(sentence["word_sequence"]) == {" ".join(sentence["word"])}


def test_signal_has_60_electrodes_in_volts_with_positions(miniature):
    root, _, cache = miniature
    recordings = {each.subject_uid: each for each in from_selection(selection(root), cache)}
    raw = recordings["S01"].raw()
    eeg = mne.pick_types(raw.info, eeg=True)
    assert [raw.ch_names[pick] for pick in eeg] == brennan.ELECTRODES
    assert raw.get_channel_types(["VEOG", "AUD"]) == ["eog", "misc"]
    stored = scipy.io.loadmat(root / "S01.mat", simplify_cells=True)["raw"]["trial"]
    np.testing.assert_allclose(raw.get_data([0, 59]), stored[[0, 59]] * 1e-6, rtol=1e-6)
    signal = recordings["S01"].preprocessed(120.0)
    assert signal.data.shape == (int(raw.n_times * 0.24), 60)
    assert (signal.sensors.positions != NO_POSITION).all()
    assert np.isfinite(signal.sensors.positions_3d).all()
    assert "AUD" not in recordings["S05"].raw().ch_names
    assert len(mne.pick_types(recordings["S05"].raw().info, eeg=True)) == 60


def test_check_of_alignment_tells_true_times_from_the_published_ones(tmp_path):
    lines = brennan.make_story()
    lengths = brennan.sound_lengths(lines)
    brennan.write_story_files(tmp_path, lines, lengths, release=1)
    samples = brennan.triggers(1000, lengths)
    brennan.write_trials(
        tmp_path / "proc" / "S01.mat", brennan.trial_rows(lines, dict(enumerate(samples, start=1)))
    )
    n_samples = samples[-1] + round((lengths[-1] + 4) * 500)
    planted = np.zeros((62, n_samples))
    generator = np.random.default_rng(5)
    for number, (first, length) in enumerate(zip(samples, lengths, strict=True), start=1):
        loudness = np.zeros(round(length * 500))
        for line in lines:
            if line["Segment"] == number:
                onset, stop = round(line["onset"] * 500), round(line["offset"] * 500)
                loudness[onset:stop] = np.linspace(generator.uniform(0.5, 1.5), 0, stop - onset)
        sound = loudness * generator.standard_normal(len(loudness))
        file = tmp_path / "audio" / brennan.SOUND.format(number)
        soundfile.write(file, 0.1 * np.repeat(sound, 32)[: round(length * 16_000)], 16_000)
        planted[61, first - 1 : first - 1 + len(sound)] = 1000 * sound
        planted[:8, first + 49 : first + 49 + len(sound)] = 20 * loudness  # 0.1 s later
    brennan.write_signal(tmp_path / "S01.mat", n_samples, planted=planted)
    rows = [
        table_row(check_alignment(load(tmp_path, Cache(tmp_path / "cache"), faithful=faithful)))
        for faithful in (False, True)
    ]
    assert [row["sound_channel"] for row in rows] == ["AUD", "AUD"]
    assert [row["sound_channel_ms"] for row in rows] == pytest.approx([0, 300], abs=10)
    assert [row["peak_ms"] for row in rows] == pytest.approx([100, 400], abs=20)
    assert [row["verdict"] for row in rows] == [OK, MISALIGNED]


def test_bad_sensors_are_left_out_on_request(miniature):
    root, _, cache = miniature
    bad = {}
    for choice in (False, True):
        for each in from_selection(selection(root, bad_sensors=choice), cache):
            signal = each.preprocessed(120.0)
            lost = signal.sensors.positions[:, 0] == NO_POSITION
            bad[each.subject_uid, choice] = list(np.array(signal.sensors.names)[lost])
    assert bad["S01", False] == bad["S08", False] == []
    assert bad["S01", True] == ["16", "24", "60"]  # GND is no electrode
    assert bad["S08", True] == ["16", "31"]  # one in each list: bare texts


def test_second_release_gives_the_same_words(miniature, tmp_path):
    first, _, cache = miniature
    brennan.write_study(tmp_path, release=2, seed=None)
    for old, new in zip(
        from_selection(selection(first), cache),
        from_selection(selection(tmp_path), cache),
        strict=True,
    ):
        assert old.recording_uid == new.recording_uid
        old, new = old.events(), new.events()
        for column in ("word", "sequence_uid", "sequence_id", "word_index"):
            assert list(words_of(old)[column]) == list(words_of(new)[column])
        assert ("true" in set(words_of(new)["word"])) == (new["segment"].min() == 1)
        np.testing.assert_allclose(words_of(old)["start"], words_of(new)["start"], atol=2e-4)


def test_second_release_in_brainvision_format(small, cache):
    root, lines, _ = small
    (root / "S01.mat").unlink()
    data = np.random.default_rng(0).normal(0, 20e-6, (62, 60_000))
    names = [*brennan.ELECTRODES, "VEOG", "Aux5"]
    pybv.write_brainvision(
        data=data, sfreq=500, ch_names=names, fname_base="S01", folder_out=root, resolution=1e-2
    )
    recording = load(root, cache)
    raw = recording.raw()
    assert len(mne.pick_types(raw.info, eeg=True)) == 60
    np.testing.assert_allclose(raw.get_data([3])[0], data[3], atol=1e-8)
    assert len(words_of(recording.events())) == len(lines)
    signal = root / "S01.eeg"
    signal.write_bytes(signal.read_bytes()[:-7])
    with pytest.raises(DataError, match=r"S01\.eeg is truncated"):
        recording.raw()


def test_words_are_joined_by_order_not_by_row(small, cache):
    root, lines, rows = small
    expected = load(root, cache).events()
    keep = np.delete(rows, [0, 5, 60, 61], axis=0)[::-1]
    brennan.write_trials(root / "proc" / "S01.mat", keep)
    found = load(root, cache).events()
    assert list(found["word"].dropna()) == list(expected["word"].dropna())
    np.testing.assert_allclose(found["start"], expected["start"], atol=2e-3)
    with pytest.raises(
        DataError, match=rf"S01\.mat: {len(keep)} trials, but the story has {len(lines)}"
    ):
        load(root, cache, faithful=True).events()


@pytest.mark.parametrize("n_lost", [1, 2])
def test_any_number_of_first_triggers_can_be_missing(small, cache, caplog, n_lost):
    root, lines, _ = small
    samples = brennan.triggers(1000, brennan.sound_lengths(lines))
    labelled = {segment - n_lost: samples[segment - 1] for segment in range(n_lost + 1, 5)}
    brennan.write_trials(root / "proc" / "S01.mat", brennan.trial_rows(lines, labelled))
    events = load(root, cache).events()
    sounds = events[events["kind"] == "sound"]
    assert list(sounds["segment"]) == list(range(n_lost + 1, 5))
    starts = np.array(samples[n_lost:]) / 500
    np.testing.assert_allclose(sounds["start"], starts, atol=2e-3)
    assert set(words_of(events)["segment"]) == set(range(n_lost + 1, 5))
    assert f"the trigger(s) of the first {n_lost} sound(s) are missing" in caplog.text
    assert f"sounds 12 vs {4 - n_lost}" in caplog.text


def test_recording_that_stopped_early_keeps_its_labels(small, cache):
    root, _, rows = small
    brennan.write_trials(root / "proc" / "S01.mat", rows[rows[:, 3] < 4])
    events = load(root, cache).events()
    assert list(events[events["kind"] == "sound"]["segment"]) == [1, 2, 3]
    assert len(words_of(events)) == sum(rows[:, 3] < 4)


def test_subjects_can_be_chosen_and_a_wrong_one_is_refused(miniature):
    root, _, cache = miniature
    assert load(root, cache, subjects=["S24"]).subject_uid == "S24"
    assert load(root, cache, subjects="S37").subject_uid == "S37"
    with pytest.raises(ValueError, match=r"subject='S1' does not exist.*Did you mean 'S"):
        load(root, cache, subjects=["S1"])


def test_tree_below_a_folder_called_download_is_found(small, cache):
    root, _, _ = small
    (root / "study").mkdir()
    (root / "study" / "download").symlink_to(root)
    assert load(root / "study", cache).subject_uid == "S01"


def test_study_that_is_as_expected_is_no_warning(caplog):
    caplog.set_level(logging.INFO)
    facts = Brennan2019.facts
    found = {"sensors": 60, "seconds": 733.0, "sounds": 12, "words": 2129, "sentences": 84}
    assert compare("S01", facts.counts, found, "none")
    assert "S01: as expected: 60 sensors, 733 seconds" in caplog.text
    assert not compare("S02", facts.counts, {**found, "seconds": 500.0}, "cut")
    assert "S02: expected vs found: seconds 726 to 747 vs 500. Likely cause: cut." in caplog.text
    assert not compare("S03", {"words": (450, float("inf"))}, {"words": 3}, "cut")
    assert "words at least 450 vs 3" in caplog.text


def test_hours_are_compared_once_all_recordings_were_loaded(caplog):
    tally = Tally("study", ["a", "b"], (6.65, 6.75), "cut")
    assert tally.add("a", 3600)
    assert not tally.add("a", 3600)
    assert caplog.text == ""
    tally.add("b", 3600)
    assert "study: expected vs found: hours 6.65 to 6.75 vs 2. Likely cause: cut." in caplog.text
