"""The leak audit: silent on sound splits, and loud on each of five planted leaks."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from helpers import SOUND_RATE, SmallRecording, make_splits, tell_story
from scipy.signal import resample_poly

from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.evaluation.audit import Audit, LeakError, audit_splits, enforce
from bm.evaluation.fingerprints import Landmarks, landmarks, shared_sounds
from bm.features import make_features
from bm.scaling import BatchScaler
from bm.segments import SegmentDataset, Splits
from bm.segments.prepare import BlockRule, Prepared, SignalSettings, prepare
from scripts import audit as script

STIMULUS_TIME = BlockRule(block_grouping="stimulus_time")


def prepared_of(*recordings: SmallRecording, rule: BlockRule = STIMULUS_TIME) -> list[Prepared]:
    return prepare(recordings, SignalSettings(), rule)


def audit_of(splits: Splits, cache: Cache | None = None) -> Audit:
    scaler = BatchScaler().fit(splits.datasets["train"], len(splits.prepared), seed=0)
    return audit_splits(splits, scaler.fitted_on, cache)


def leaks_of(audit: Audit) -> dict[str, str]:
    return {finding.check: finding.message for finding in audit.leaks}


@pytest.fixture
def two_listeners(cache: Cache, tmp_path: Path) -> list[Prepared]:
    """One story, heard by two people after different silences."""
    tables = [tell_story(tmp_path, lead_in=lead_in) for lead_in in (7.0, 1.0)]
    people = [SmallRecording(cache, table, f"r{n}", f"s{n}", n) for n, table in enumerate(tables)]
    return prepared_of(*people)


def with_split(item: Prepared, split: str) -> Prepared:
    return dataclasses.replace(item, blocks=item.blocks.assign(split=split))


# What must pass


def test_sound_splits_have_no_leak(two_listeners, cache):
    splits = make_splits([], cache, prepared=two_listeners)
    found = audit_of(splits, cache)
    assert not found.leaks
    checks = ["stimulus", "windows", "context", "scaler", "candidates", "text"]
    assert [finding.check for finding in found.findings] == checks
    enforce(found, "error")


def test_vocabulary_and_sentences_in_both_splits_are_counted(two_listeners, cache):
    message = audit_of(make_splits([], cache, prepared=two_listeners)).findings[-1].message
    words = {split: set[str]() for split in ("train", "test")}
    for item in two_listeners:
        for event in item.events[item.events["kind"] == "word"].itertuples():
            starts = item.blocks["start"].to_numpy()
            split = item.blocks["split"][np.searchsorted(starts, event.start, side="right") - 1]
            if split in words:
                words[split].add(event.word.lower())
    n_shared = len(words["train"] & words["test"])
    assert f"{n_shared} of {len(words['test'])} test words" in message
    assert ", 0 of " in message


# The five planted leaks


def test_same_sentence_in_two_sessions_under_another_file_name(cache, tmp_path):
    first = tell_story(tmp_path, seed=0)
    second = tell_story(tmp_path, seed=1, name="other")
    copied = _with_sentence_of(first, second, tmp_path / "session two.wav")
    recordings = [
        SmallRecording(cache, first, "r0", "s0", 0),
        SmallRecording(cache, copied, "r1", "s1", 1),
    ]
    items = prepared_of(*recordings)
    items[0] = with_split(items[0], "train")
    splits = make_splits([], cache, prepared=[items[0], items[1]])
    message = leaks_of(audit_of(splits))["stimulus"]
    assert "sound the same in story.wav" in message
    assert "session two.wav" in message
    assert "small/r0" in message
    assert "small/r1" in message


def _with_sentence_of(first: pd.DataFrame, second: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The second story, in all of whose gaps between sentences the first story plays instead."""
    original, _ = soundfile.read(first["filepath"].iloc[0])
    other, _ = soundfile.read(second["filepath"].iloc[0])
    other[:] = 0.5 * np.resize(original[37:], len(other))  # another gain, another place
    soundfile.write(path, other, SOUND_RATE)
    return second.assign(filepath=second["filepath"].where(second["filepath"].isna(), str(path)))


def test_copy_of_a_file_under_another_name_is_the_same_stimulus(cache, tmp_path):
    story = tell_story(tmp_path)
    copy = tmp_path / "copy.wav"
    shutil.copy(tmp_path / "story.wav", copy)
    renamed = story.assign(filepath=story["filepath"].where(story["filepath"].isna(), str(copy)))
    items = prepared_of(
        SmallRecording(cache, story, "r0", "s0", 0), SmallRecording(cache, renamed, "r1", "s1", 1)
    )
    items[0] = with_split(items[0], "train")
    message = leaks_of(audit_of(make_splits([], cache, prepared=items)))["stimulus"]
    assert "small/r0" in message
    assert "small/r1" in message
    assert "copy.wav from" in message


def test_scaler_on_all_data(two_listeners, cache):
    splits = make_splits([], cache, prepared=two_listeners)
    train, test = splits.datasets["train"], splits.datasets["test"]
    everything = SegmentDataset(
        pd.concat([train.table, test.table]), train.store, train.stimuli, train.n_times, 0
    )
    scaler = BatchScaler().fit(everything, len(splits.prepared), seed=0)
    message = leaks_of(audit_splits(splits, scaler.fitted_on))["scaler"]
    assert f"{len(test)} of {len(everything)} windows" in message
    assert f"small/r0 at {test.table['first'].iloc[0] / 120:.3f} s" in message


def test_window_over_a_border(two_listeners, cache):
    splits = make_splits([], cache, prepared=two_listeners)
    table = splits.datasets["test"].table
    block = two_listeners[1].blocks.query("split == 'test'").iloc[0]
    row = table.index[table["recording"] == 1][0]
    table.loc[row, "first"] = round((block["start"] - 0.1) * 120)
    message = leaks_of(audit_of(splits))["windows"]
    assert message.startswith("1 segment(s)")
    assert f"small/r1 at {table['time'][row]:.3f} s (test)" in message


def test_speech_model_over_a_border(cache, tmp_path):
    story = tell_story(tmp_path)
    uncut = dataclasses.replace(STIMULUS_TIME, split_wav_as_block=False)
    items = prepared_of(SmallRecording(cache, story, "r0", "s0", 0), rule=uncut)
    splits = make_splits([], cache, prepared=items)
    assert not audit_of(splits).leaks  # a mel spectrum hears 32 ms
    message = leaks_of(audit_of(hearing_with_wav2vec(splits)))["context"]
    assert "Wav2VecTransformer hears 1 piece(s) of sound over the border" in message
    assert "small/r0 at 1.000 s" in message
    cut = make_splits([], cache, prepared=prepared_of(SmallRecording(cache, story, "r0", "s0", 0)))
    assert not audit_of(hearing_with_wav2vec(cut)).leaks


def hearing_with_wav2vec(splits: Splits) -> Splits:
    """The same splits, as if their features had been made by wav2vec 2.0."""
    for dataset in splits.datasets.values():
        dataset.stimuli.features[:] = make_features(["Wav2VecTransformer"], {})
    return splits


def test_merged_blocks_that_differ_between_subjects(cache, tmp_path):
    tables = [tell_story(tmp_path, lead_in=lead_in, seed=24) for lead_in in (1.0, 5.5)]
    people = [SmallRecording(cache, table, f"r{n}", f"s{n}", n) for n, table in enumerate(tables)]
    published = prepared_of(*people, rule=BlockRule())
    message = leaks_of(audit_of(make_splits([], cache, prepared=published)))["stimulus"]
    assert "train and test share" in message
    assert "story.wav from" in message
    assert "small/r0" in message
    assert "small/r1" in message
    assert "dset.block_grouping=stimulus_time" in message
    assert "to repeat a published experiment with the leak that it had, set audit=warn" in message
    repaired = make_splits([], cache, prepared=prepared_of(*people))
    assert not audit_of(repaired).leaks


# Without sound, and other answers


def test_sentence_that_is_read_in_two_splits_is_a_leak(cache, tmp_path):
    story = tell_story(tmp_path)
    read = story[story["kind"] == "word"].drop(columns=["filepath", "offset"])
    later = read.assign(start=read["start"] + 4.5)
    people = [
        SmallRecording(cache, table, f"r{n}", f"s{n}", n) for n, table in enumerate((read, later))
    ]
    items = prepared_of(*people, rule=BlockRule())
    items[0] = with_split(items[0], "train")
    splits = make_splits([], cache, ["WordHash"], prepared=items)
    message = leaks_of(audit_of(splits))["stimulus"]
    assert "the sentence '" in message
    assert "small/r0" in message
    assert "small/r1" in message


def test_candidates_with_equal_features_are_told_and_are_no_leak(two_listeners, cache):
    splits = make_splits([], cache, ["WordHash"], prepared=two_listeners)
    test = splits.datasets["test"]
    (finding,) = [one for one in audit_of(splits).findings if one.check == "candidates"]
    assert "no two with equal features" in finding.message
    for timeline in test.stimuli.timelines:
        timeline[:] = 0
    (finding,) = [one for one in audit_of(splits).findings if one.check == "candidates"]
    assert not finding.is_leak
    n_candidates = len(test.table.drop_duplicates(["word_sequence", "word_index"]))
    assert f"{n_candidates} of {n_candidates} have the features of another" in finding.message


def test_old_checkpoint_says_that_it_does_not_know(two_listeners, cache):
    splits = make_splits([], cache, prepared=two_listeners)
    scaler = BatchScaler().fit(splits.datasets["train"], 2, seed=0)
    state = scaler.state_dict()
    again = BatchScaler()
    again.load_state_dict(state)
    assert torch.equal(again.fitted_on, scaler.fitted_on)
    del state["fitted_on"]
    again.load_state_dict(state)
    assert "scaler: unknown" in str(audit_splits(splits, again.fitted_on))


# Fingerprints


@pytest.fixture(scope="module")
def speech(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by one voice, a minute or less."""
    parts = [soundfile.read(path)[0] for path in sorted((shared_data / "librivox").glob("*.wav"))]
    path = tmp_path_factory.mktemp("speech") / "original.wav"
    soundfile.write(path, np.concatenate(parts), SOUND_RATE)
    return path


def shared(first: Landmarks, second: Landmarks) -> list:
    return shared_sounds(
        first, second, np.zeros(len(first.times), int), np.ones(len(second.times), int)
    )


@pytest.mark.parametrize(("suffix", "rate"), [(".wav", 22_050), (".mp3", 16_000), (".ogg", 16_000)])
def test_sound_is_known_again_after_conversion(speech, tmp_path, suffix, rate):
    samples, native = soundfile.read(speech)
    cut = samples[int(5.1234 * native) :]
    resampled = resample_poly(cut, rate, native)
    copy = tmp_path / f"copy{suffix}"
    soundfile.write(copy, 0.3 * resampled, rate)
    original, converted = landmarks(speech), landmarks(copy)
    found = shared(original, converted)
    assert sum(match.span for match in found) > 0.6 * len(cut) / native
    longest = max(found, key=lambda match: match.span)
    shift = original.times[longest.first] - converted.times[longest.second]
    assert shift == pytest.approx(5.1234, abs=0.06)


def test_different_speech_of_one_voice_is_told_apart(speech):
    marks = landmarks(speech)
    assert len(marks.times) > 60
    half = marks.times.max() / 2
    early, late = (
        Landmarks(marks.times[part], marks.patches[part])
        for part in (marks.times < half, marks.times >= half)
    )
    assert not shared(early, late)


def test_landmarks_are_kept_in_the_cache(speech, cache):
    found = landmarks(speech, cache)
    assert len(list((cache.folder / "landmarks").glob("original-*"))) == 1
    np.testing.assert_array_equal(found.patches, landmarks(speech).patches)
    np.testing.assert_array_equal(landmarks(speech, cache).times, found.times)


# What follows from it


def test_leak_stops_the_run_or_warns(two_listeners, cache, caplog):
    splits = make_splits([], cache, prepared=two_listeners)
    splits.datasets["test"].table.loc[0, "first"] = 10
    found = audit_of(splits)
    with pytest.raises(LeakError, match=r"windows: 1 segment.*small/r0(.|\n)*audit=warn"):
        enforce(found, "error")
    enforce(found, "warn")
    assert "Audit: LEAK  windows" in caplog.text
    with pytest.raises(ValueError, match="audit"):
        enforce(found, "loud")
    assert issubclass(LeakError, DataError)


def test_script_names_the_leak_and_its_exit_code_says_so(tmp_path, capsys, root, monkeypatch):
    settings = [
        "selections=[fake]", "dset.features=[MelSpectrum]", f"cache={tmp_path / 'cache'}",
        "dset.block_grouping=stimulus_time",
    ]  # fmt: skip
    assert script.main(settings) == 0
    assert "No leak." in capsys.readouterr().out
    assert script.main([*settings, "dset.ignore_end_in_block=true"]) == 1
    printed = capsys.readouterr().out
    assert "LEAK  windows: " in printed
    assert "fake/simulated-01-session-1 at " in printed
    assert script.main(["selections=[nowhere]"]) == 2
    assert script.main(["sig=12345678", "more=1"]) == 2
    assert script.main(["--help"]) == 0


def test_sound_without_loud_moments_has_no_landmarks(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(SOUND_RATE), SOUND_RATE)
    soundfile.write(tmp_path / "short.wav", np.ones(300), SOUND_RATE)
    for name in ("silent.wav", "short.wav"):
        found = landmarks(tmp_path / name)
        assert len(found.times) == len(found.patches) == 0
        assert not shared(found, found)
