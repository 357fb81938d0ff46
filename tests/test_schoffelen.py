"""MOUS in miniature: events lie where their triggers are, whatever is missing or added."""

import logging
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
import yaml
from fixtures.schoffelen import (
    FILE_TO_ONSET,
    HEARD,
    LIST_OFFSET,
    READ,
    SHIFT,
    break_of,
    length_of,
    listening,
    reading,
    text_of,
    trigger_of,
    with_break,
    words_of,
    write_study,
)

from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.events import assign_splits, create_blocks
from bm.segments.prepare import BlockRule, SignalSettings, prepare
from bm.segments.windows import WindowRule, find_windows
from bm.studies import from_selection
from bm.studies.mous.triggers import Triggers, align
from bm.studies.schoffelen2019 import DELAY, Schoffelen2019

SAMPLE = 1 / 1200
SPEED = 1 + 1.5e-4
"""Of the recording of A2004, in seconds for one of the log."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mous")
    write_study(folder / "download")
    return folder


@pytest.fixture(scope="module")
def load(root):
    """Give the recordings of a selection by name, with one cache for all."""
    cache = Cache(root / "cache")

    def found(**options):
        selection = {"study": "schoffelen2019", "path": root, **options}
        return {each.recording_uid: each for each in from_selection(selection, cache)}

    return found


def sounds_of(events):
    return events[events["kind"] == "sound"]


def words(events):
    return events[events["kind"] == "word"]


def file_starts(lines):
    return np.array([line.time for line in lines if line.trigger == 14])


def test_listeners_and_readers_are_found_in_the_order_of_their_names(load, caplog):
    assert list(load()) == ["A2002", "A2003_run-1", "A2003_run-2", "A2004", "A2006"]
    assert "1 recording(s) absent, 5 used" in caplog.text
    assert "sub-A2005_task-auditory_meg.ds is missing" in caplog.text
    assert list(load(modality="visual")) == ["V1001", "V1006_run-1", "V1006_run-2", "V1115"]


def test_as_published_people_with_two_runs_and_v1115_are_left_out(load, caplog):
    caplog.set_level(logging.INFO)
    assert list(load(faithful=True)) == ["A2002", "A2004"]
    assert list(load(modality="visual", faithful=True)) == ["V1001"]
    assert "left out, as published: V1006, V1115" in caplog.text


def test_both_runs_are_one_person(load):
    runs = [each for name, each in load().items() if name.startswith("A2003")]
    assert [(each.subject_uid, each.session) for each in runs] == [("A2003", "1"), ("A2003", "2")]


def test_number_of_people_is_compared_with_what_is_known(load, caplog):
    load()
    assert "expected vs found: subjects 102 vs 4; recordings 108 vs 5." in caplog.text
    caplog.clear()
    load(modality="visual", faithful=True)
    assert "expected vs found: subjects 99 vs 1; recordings 99 vs 1." in caplog.text
    caplog.clear()
    assert list(load(subjects="A2003")) == ["A2003_run-1", "A2003_run-2"]
    assert "expected vs found" not in caplog.text


def test_study_states_what_it_should_hold():
    published = Schoffelen2019.by_modality["audio", True]
    assert (published.subjects, published.recordings) == (96, 96)
    low, high = published.hours
    assert low < 80.9 < high
    assert Schoffelen2019.by_modality["visual", True].recordings + published.recordings == 195
    assert Schoffelen2019.facts.licence == "RU-DI-HD-1.0"
    assert Schoffelen2019.facts.counts["sensors"] == 273


def test_counts_of_a_recording_are_compared_with_what_is_known(load, root, caplog):
    recording = load()["A2002"]
    recording.cache = Cache(root / "another")
    recording.events()
    assert "A2002: expected vs found: items 220 vs 12. Likely cause: the recording" in caplog.text
    assert "A2002: expected vs found: sensors 273 vs 12." in caplog.text


@pytest.mark.parametrize("name", ["A2002", "A2003_run-1", "A2003_run-2", "A2004", "A2006"])
def test_sounds_begin_with_their_trigger_and_the_way_to_the_ear(load, name):
    starts = sounds_of(load()[name].events())["start"].to_numpy()
    log = file_starts(with_break(listening()) if "run" in name else listening())
    if name == "A2004":
        log, shift = SPEED * log, 3.0
    elif name == "A2003_run-2":
        shift = SHIFT - break_of(with_break(listening()))
        log = log[-6:]
    else:
        shift = SHIFT
        log = log[: len(starts)]
    assert len(starts) == len(log) == (6 if "run" in name else 12)
    np.testing.assert_allclose(starts, log + shift + 0.060, atol=SAMPLE)


def test_delay_to_the_ear_can_be_set(load):
    recordings = load(stimulus_delay=0.0), load(stimulus_delay=0.1)
    starts = [sounds_of(each["A2002"].events())["start"] for each in recordings]
    np.testing.assert_allclose(starts[1] - starts[0], 0.1, atol=1e-12)
    assert starts[0].iloc[0] == pytest.approx(SHIFT + 4.5904, abs=SAMPLE)


def test_words_and_phonemes_of_a_sound_are_those_of_its_textgrid(load):
    events = load()["A2002"].events()
    of_first = events[events["sequence_id"] == "1"]
    sound = of_first.iloc[0]
    assert sound["kind"] == "sound"
    assert sound["duration"] == length_of(1)
    assert sound["filepath"].endswith("EQ_Ramp_Int2_Int1LPF001.wav")
    heard = words(of_first)
    truth = words_of(1)
    assert list(heard["word"]) == text_of(1).split()
    assert list(heard["word_index"]) == list(range(len(truth)))
    np.testing.assert_allclose(heard["start"] - sound["start"], [start for start, _, _ in truth])
    np.testing.assert_allclose(heard["duration"], [stop - start for start, stop, _ in truth])
    assert set(heard["word_sequence"]) == {text_of(1)}
    phonemes = of_first[of_first["kind"] == "phoneme"]
    assert list(phonemes["phoneme"]) == ["t", "u:"] * len(truth)
    assert list(phonemes["start"][::2]) == list(heard["start"])
    assert (phonemes.index[::2] > heard.index).all()
    assert set(events["language"]) == {"nl"}


@pytest.mark.parametrize("name", ["A2004", "A2006"])
def test_each_sound_is_a_block_known_by_the_number_of_its_item(load, name):
    recording = load()[name]
    assert not recording.merge_blocks
    blocks = create_blocks(recording.events(), recording.block_rule)
    assert list(blocks["uid"]) == [str(number) for number in HEARD]


def test_an_item_is_in_the_same_split_for_all_who_heard_or_read_it(load):
    splits: dict[str, set[str]] = {}
    for recording in [*load().values(), *load(modality="visual").values()]:
        blocks = create_blocks(recording.events(), recording.block_rule)
        for uid, split in assign_splits(blocks)[["uid", "split"]].itertuples(index=False):
            splits.setdefault(uid, set()).add(split)
    assert set(splits) == {str(number) for number in [*HEARD, *READ]}
    assert all(len(each) == 1 for each in splits.values())
    assert {"test"} in splits.values()
    assert {"train"} in splits.values()


def test_condition_is_that_of_the_item(load):
    for recording in load().values():
        heard = words(recording.events())
        is_list = heard["sequence_id"].astype(int) > LIST_OFFSET
        assert is_list.any()
        assert (heard["condition"] == np.where(is_list, "word_list", "sentence")).all()


def test_filter_keeps_word_lists_alone(load):
    heard = load(events_filter='condition == "word_list"')["A2006"].events()
    lists = [str(number) for number in HEARD if number > LIST_OFFSET]
    assert list(sounds_of(heard)["sequence_id"]) == lists
    assert set(words(heard)["sequence_id"]) == set(lists)


def test_as_published_the_filter_has_no_effect(load, caplog):
    options = {"faithful": True, "subjects": "A2004"}
    filtered = load(events_filter='condition == "word_list"', **options)["A2004"].events()
    pd.testing.assert_frame_equal(filtered, load(**options)["A2004"].events())
    assert "as published, events_filter has no effect" in caplog.text


def test_read_words_begin_with_their_trigger_and_the_way_to_the_eye(load):
    seen = load(modality="visual")["V1001"].events()
    lines = [line for line in reading() if 0 < line.trigger < 10]
    assert set(seen["kind"]) == {"word"}
    times = [line.time + SHIFT + 0.036 for line in lines]
    np.testing.assert_allclose(seen["start"], times, atol=SAMPLE)
    np.testing.assert_allclose(seen["duration"], [line.duration for line in lines], atol=1e-9)
    assert set(seen["modality"]) == {"visual"}


def test_read_items_are_whole_but_for_the_last_word_of_lists(load):
    seen = load(modality="visual")["V1001"].events()
    firsts = seen[seen["word_index"] == 0]
    assert list(firsts["sequence_uid"]) == [str(number) for number in READ]
    for number in READ:
        item = seen[seen["sequence_uid"] == str(number)]
        shown = text_of(number).split()
        shown = shown[:-1] if number > LIST_OFFSET else shown
        assert list(item["word"]) == shown
        assert list(item["word_index"]) == list(range(len(shown)))
        assert set(item["word_sequence"]) == {" ".join(shown)}
        assert set(item["condition"]) == {"word_list" if number > LIST_OFFSET else "sentence"}
    assert {"één", "PRECISIE", "MP3", "mp3"} <= set(seen["word"])


def test_as_published_words_lose_digits_and_those_like_a_code_are_lost(load):
    options = {"modality": "visual", "subjects": "V1001"}
    seen = load(**options)["V1001"].events()
    published = load(**options, faithful=True)["V1001"].events()
    assert len(published) == len(seen) - 1
    assert {"mp", "één", "MP3."} <= set(published["word"])
    assert not {"PRECISIE", "mp3"} & set(published["word"])
    firsts = published[published["word_index"] == 0]
    assert list(firsts["sequence_uid"]) == [str(number) for number in READ]
    same = seen["word"] != "PRECISIE"
    early = (seen["start"][same].to_numpy() - published["start"]).to_numpy()
    np.testing.assert_allclose(early, 0.036, atol=2 * SAMPLE)


def test_published_sounds_begin_late_and_end_with_their_last_word(load):
    ours, published = (
        sounds_of(load(faithful=faithful)["A2002"].events()) for faithful in (False, True)
    )
    late = published["start"].iloc[0] - (ours["start"].iloc[0] - DELAY["audio"])
    assert late == pytest.approx(FILE_TO_ONSET, abs=2 * SAMPLE)
    assert published["duration"].iloc[0] == pytest.approx(words_of(1)[-1][1])
    phonemes = load(faithful=True)["A2002"].events().query("kind == 'phoneme'")
    heard = words(load(faithful=True)["A2002"].events())
    np.testing.assert_allclose(phonemes["start"][:12:2] - heard["start"][:6].to_numpy(), 1e-6)


def test_published_places_are_wrong_after_a_missing_trigger(load):
    """The third cross has no trigger: that of the fourth is taken for it."""
    published = sounds_of(load(faithful=True)["A2002"].events())["start"].to_numpy()
    truth = file_starts(listening())[: len(published)] + SHIFT + FILE_TO_ONSET
    wrong = np.abs(published - truth) > 1.0
    assert np.flatnonzero(wrong).tolist() == [2, 3]


def test_published_log_ends_before_its_second_run(load):
    """The first run of A2004's log was broken off before the MEG ran."""
    published = sounds_of(load(faithful=True)["A2004"].events())
    assert list(published["sequence_id"]) == [str(number) for number in HEARD[4:6]]


def test_published_events_end_with_the_last_trigger(load):
    """That of the last sound file is missing in A2002, though the recording goes on."""
    ours, published = (load(faithful=faithful)["A2002"].events() for faithful in (False, True))
    numbers = [str(number) for number in HEARD]
    assert list(sounds_of(ours)["sequence_id"]) == numbers
    assert list(sounds_of(published)["sequence_id"]) == numbers[:-1]


@pytest.mark.parametrize("selection", ["audio_mous", "audio_mous_wl", "visual_mous"])
def test_each_selection_of_the_configuration_can_be_prepared(load, selection):
    definitions = Path(__file__).parents[1] / "conf" / "selections" / "selections_definitions.yaml"
    options = yaml.safe_load(definitions.read_text())[selection]
    assert options.pop("study") == "schoffelen2019"
    ready = prepare(load(**options).values(), SignalSettings(), BlockRule())
    assert len(ready) == (5 if "audio" in selection else 4)
    n_windows = 0
    for each in ready:
        blocks = each.blocks
        assert each.signal.data.shape[1] == 12
        shown = words(each.events)
        assert len(shown)
        if selection == "audio_mous_wl":
            assert set(shown["condition"]) == {"word_list"}
        windows = find_windows(
            each.events, blocks, WindowRule(condition="word"), each.signal.n_samples, 120.0
        )
        n_windows += len(windows)
    assert n_windows > 50


def test_true_times_of_a_first_item_are_found_to_the_sample():
    """A2002: lines of the log beside the triggers, as the authors' table has them."""
    log = Triggers(
        np.array([-0.6500, 3.0664, 4.5904, 4.6364, 7.4684, 8.5574]),
        np.array([10, 20, 14, 1, 2, 15]),
    )
    received = np.array([7.0775, 10.794167, 12.318333, 12.364167, 15.195833, 16.285])
    clock = align(log, Triggers(received, log.codes), 2457.3)
    assert clock is not None
    np.testing.assert_array_equal(clock.seconds(log.times), received)
    without_file = Triggers(np.delete(received, 2), np.delete(log.codes, 2))
    clock = align(log, without_file, 2457.3)
    assert clock is not None
    assert clock.seconds(np.array([4.5904])).item() == pytest.approx(received[2], abs=SAMPLE)


def test_options_that_contradict_each_other_are_refused(root, load):
    with pytest.raises(ValueError, match="stimulus_delay=0.1 with faithful=True"):
        load(faithful=True, stimulus_delay=0.1)
    with pytest.raises(ValueError, match=r"modality='auditory' does not exist.*'audio'"):
        load(modality="auditory")
    with pytest.raises(ValueError, match=r"subject='A2001' does not exist.*Allowed: A2002, A2003"):
        load(subjects=["A2001"])
    with pytest.raises(
        DataError, match=r"no recording of MOUS with modality='visual'.*downloads\.md"
    ):
        next(from_selection({"study": "schoffelen2019", "path": root / "download" / "stimuli",
                             "modality": "visual"}, root / "cache"))  # fmt: skip


def test_data_channels_are_the_sensors_alone(load):
    raw = load()["A2006"].raw()
    kinds = raw.get_channel_types()
    assert [kinds.count(kind) for kind in ("mag", "ref_meg", "eeg", "stim")] == [12, 3, 0, 2]
    assert len(mne.pick_types(raw.info, meg=True)) == 15  # with the references: not what is wanted
    names = load()["A2006"].preprocessed(120.0).sensors.names
    assert len(names) == 12
    assert all(name.startswith("M") for name in names)
    assert not any("-" in name for name in names)


def test_triggers_of_an_item_tell_its_kind():
    assert [trigger_of(number) for number in (1, 205, 501, 705)] == [1, 5, 3, 7]
