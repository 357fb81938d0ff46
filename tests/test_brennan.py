"""Alice: real tables of trials give the known times, counts and splits; broken files are named."""

import logging
from collections import Counter

import mne
import numpy as np
import pybv
import pytest
import scipy.io
from fixtures import brennan

from bm.core.cache import Cache
from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.events import UNLABELLED, assign_splits, create_blocks, merge_blocks
from bm.events.blocks import SPLITS
from bm.segments.prepare import BlockRule, SignalSettings, prepare
from bm.segments.windows import WindowRule, find_windows
from bm.studies import from_selection
from bm.studies.alice import read_story
from bm.studies.brennan2019 import Brennan2019
from bm.studies.expected import Tally, compare

SECONDS = {"S01": 733.048, "S02": 734.0, "S24": 731.0, "S37": 727.45}
ORDER = "0222222222002220222202222222122122221212122212222220222112"  # 0 test, 1 valid, 2 train
WORDS_OF_SEGMENTS = [174, 177, 184, 214, 193, 197, 178, 175, 156, 187, 157, 137]
MINIATURE = ["S01", "S02", "S05", "S08", "S24", "S37"]


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """Events of the four real tables of trials, as they are and as published."""
    root = tmp_path_factory.mktemp("alice")
    brennan.copy_real(shared_data / "brennan2019", root, SECONDS)
    return {
        faithful: {
            each.subject_uid: each.events()
            for each in from_selection(selection(root, faithful=faithful), root / "cache")
        }
        for faithful in (False, True)
    }


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


def words_of(events):
    return events[events["kind"] == "word"]


def blocks_of(events):
    return assign_splits(merge_blocks(create_blocks(events)))


def split_of_words(events):
    """Split of each word, by its place in the story."""
    blocks = blocks_of(events)
    words = words_of(events)
    index = np.searchsorted(blocks["start"], words["start"] + 1e-6, side="right") - 1
    keys = zip(
        words["sequence_uid"],
        words["word"],
        words.groupby("sequence_uid").cumcount(ascending=False),
        strict=True,
    )
    return dict(zip(keys, blocks["split"].to_numpy()[index], strict=True))


@pytest.mark.parametrize(("label", "onset"), [("S01", 3.772), ("S02", 1.372), ("S37", 0.278)])
def test_real_words_begin_at_the_onset_of_their_trial(real, label, onset):
    events = real[False][label]
    words = words_of(events)
    assert len(words) == 2129
    assert words["word"].iloc[0] == "Alice"
    assert words["start"].iloc[0] == pytest.approx(onset, abs=1e-6)
    assert list(words.groupby("segment").size()) == WORDS_OF_SEGMENTS
    sounds = events[events["kind"] == "sound"]
    assert len(sounds) == 12
    assert sounds["start"].iloc[0] == pytest.approx(onset - 0.046, abs=2e-3)
    pauses = np.diff(sounds["start"]) - sounds["duration"].to_numpy()[:-1]
    assert (pauses > 0.035).all()
    assert (pauses < 0.08).all()


def test_real_sounds_of_s24_lost_their_first_trigger_and_eleven_are_recovered(real, caplog):
    events = real[False]["S24"]
    words = words_of(events)
    sounds = events[events["kind"] == "sound"]
    assert [file.rsplit("File", 1)[1] for file in sounds["filepath"]] == [
        f"{number}.wav" for number in range(2, 13)
    ]
    assert words["word"].iloc[0] == "but"
    assert words["start"].iloc[0] == pytest.approx(57.056 + 0.480, abs=1e-3)
    assert list(words.groupby("segment").size()) == WORDS_OF_SEGMENTS[1:]
    pauses = np.diff(sounds["start"]) - sounds["duration"].to_numpy()[:-1]
    assert (pauses > 0.035).all()
    assert (pauses < 0.08).all()
    unlabelled = events[events["kind"] == UNLABELLED]
    assert unlabelled[["start", "duration"]].to_numpy().tolist() == [[0.0, pytest.approx(57.016)]]


def test_s24_has_no_word_in_another_split_than_s01(real):
    complete, part = split_of_words(real[False]["S01"]), split_of_words(real[False]["S24"])
    assert len(part) == 1955
    assert [key for key, split in part.items() if complete[key] != split] == []


@pytest.mark.parametrize(
    ("label", "faithful"),
    [("S01", False), ("S02", False), ("S37", False), ("S01", True), ("S37", True)],
)
def test_real_blocks_are_the_known_58(real, label, faithful):
    events = real[faithful][label]
    blocks = blocks_of(events)
    numbers = blocks["split"].map({"test": "0", "valid": "1", "train": "2"})
    assert len(create_blocks(events)) == 84
    assert "".join(numbers) == ORDER
    assert Counter(numbers) == {"0": 6, "1": 8, "2": 44}


def segments_of(events, label):
    """Segments in test, valid and train."""
    blocks = blocks_of(events)
    rules = {"test": WindowRule(condition="word")}
    return {
        split: find_windows(
            events,
            blocks[blocks["split"] == split],
            rules.get(split, WindowRule(condition=0.5)),
            int(SECONDS[label] * 120),
            120.0,
        )
        for split in SPLITS
    }


@pytest.mark.parametrize(
    ("faithful", "label", "counts"),
    [
        (False, "S01", (190, 188, 794)),
        (False, "S37", (189, 188, 789)),
        (True, "S01", (190, 185, 801)),
        (True, "S37", (188, 185, 795)),
    ],
)
def test_real_segments_are_190_for_test_and_185_to_188_for_validation(
    real, faithful, label, counts
):
    segments = segments_of(real[faithful][label], label)
    assert tuple(len(segments[split]) for split in SPLITS) == counts


def test_no_segment_of_s24_overlaps_the_speech_that_has_no_labels(real):
    known = real[False]["S24"]
    unknown = known[known["kind"] != UNLABELLED]
    begins = {
        name: min(windows["time"].min() - 0.5 for windows in segments_of(events, "S24").values())
        for name, events in (("known", known), ("unknown", unknown))
    }
    assert begins["unknown"] == 0.0
    assert 57.016 < begins["known"] < 57.6


def test_real_test_words_are_126_different_ones(real):
    test = segments_of(real[True]["S01"], "S01")["test"]
    assert test["word"].str.lower().nunique() == 126


def test_faithful_puts_everything_300_ms_early(real):
    right, early = real[False]["S01"], real[True]["S01"]
    assert words_of(early)["start"].iloc[0] == pytest.approx(3.472, abs=1e-6)
    delays = words_of(right)["start"].to_numpy() - words_of(early)["start"].to_numpy()
    np.testing.assert_allclose(delays, 0.3, atol=1e-6)
    sounds = [events[events["kind"] == "sound"]["start"] for events in (right, early)]
    np.testing.assert_allclose(sounds[0].to_numpy() - sounds[1].to_numpy(), 0.3, atol=2.1e-3)


def test_faithful_leaves_out_those_the_published_code_left_out(real):
    assert list(real[False]) == ["S01", "S02", "S24", "S37"]
    assert list(real[True]) == ["S01", "S37"]


def test_faithful_s37_begins_before_its_recording(real):
    events = real[True]["S37"]
    sound = events[events["kind"] == "sound"].iloc[0]
    assert (sound["start"], sound["offset"]) == (0.0, pytest.approx(0.068))
    word = words_of(events).iloc[0]
    assert (word["word"], word["start"], word["word_index"]) == ("Alice", 0.0, 0)
    assert word["duration"] == pytest.approx(0.562721 - 0.022, abs=1e-4)


def test_lost_apostrophes_come_back_but_blocks_keep_the_text_of_the_file(real, shared_data):
    story = read_story(shared_data / "brennan2019" / brennan.STORY)
    lost = story[story["text"].str.contains("\x1a")]
    assert list(lost["order"]) == [46, 211, 1534, 1608]
    assert list(lost["word"]) == ["'s", "'d", "'d", "'s"]
    assert all("\x1a" in uid for uid in lost["sequence_uid"])
    assert story["word"].str.lower().nunique() == 601
    assert not words_of(real[False]["S01"])["word"].str.contains("\x1a").any()
    assert words_of(real[True]["S01"])["word"].str.contains("\x1a").sum() == 4


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
