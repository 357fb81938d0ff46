"""Segments: which windows there are, what a batch holds, and which split nothing leaks into."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RATE, RULES, SmallRecording, make_splits, tell_story, write_sound

from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.features.words import WordHash
from bm.segments import Splits, WindowRule, align_to_delay, find_windows
from bm.segments.controls import apply_control
from bm.segments.prepare import BlockRule, Prepared, SignalSettings, prepare
from bm.segments.splits import identify

WORDS = WindowRule(condition="word")
EVERYWHERE = pd.DataFrame({"start": [0.0], "duration": [np.inf]})


def words(*starts: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kind": "word",
            "start": starts,
            "duration": 0.3,
            "word": [f"word{number}" for number in range(len(starts))],
            "word_index": np.arange(len(starts)),
            "word_sequence": "a sentence",
        }
    )


def times_of(
    rule: WindowRule,
    events: pd.DataFrame,
    blocks: pd.DataFrame = EVERYWHERE,
    n_samples: int = 1200,
    sample_rate: float = RATE,
) -> list[float]:
    return find_windows(events, blocks, rule, n_samples, sample_rate)["time"].tolist()


# Windows


@pytest.mark.parametrize(
    ("tmin", "tmax", "sample_rate", "n_times"),
    [(-0.5, 2.5, 120, 361), (-0.5, 2.5, 60, 181), (-0.3, 0.5, 120, 97), (0.0, 1.0, 100, 101)],
)
def test_both_ends_belong_to_the_window(tmin, tmax, sample_rate, n_times):
    assert WindowRule(tmin, tmax).n_times(sample_rate) == n_times


@pytest.mark.parametrize(("n_samples", "last"), [(1200, 7.0), (1201, 7.5), (361, 0.5), (360, None)])
def test_anchors_for_training_stand_every_half_second(n_samples, last):
    # 1200 samples end at 9.9917 s: a window of 7.5 s would need 10 s.
    windows = find_windows(words(), EVERYWHERE, WindowRule(), n_samples, RATE)
    expected = [] if last is None else np.arange(0.5, last + 0.1, 0.5).tolist()
    assert windows["time"].tolist() == expected
    assert windows["first"].tolist() == [round(time * 120) - 60 for time in expected]
    assert (windows["event"] == -1).all()
    assert windows["word"].isna().all()


def test_stride_can_be_any():
    assert times_of(WindowRule(condition=3.0), words()) == [3.0, 6.0]
    assert len(times_of(WindowRule(condition=0.1), words())) == 70  # 0.5 to 7.4


@pytest.mark.parametrize(
    ("start", "is_kept"),
    [
        (2.5, True),  # from 2 to 5 s, as the block: both borders count as inside
        (2.503, True),  # ends less than half a sample beyond
        (2.505, False),
        (2.4999, False),  # begins before
    ],
)
def test_window_touching_the_borders_of_its_block(start, is_kept):
    block = pd.DataFrame({"start": [2.0], "duration": [3.0]})
    assert times_of(WORDS, words(start), block) == [start] * is_kept


def test_window_lies_in_one_block():
    events = words(2.5, 4.0, 5.5)
    blocks = pd.DataFrame({"start": [0.0, 5.0], "duration": [5.0, 5.0]})
    assert times_of(WORDS, events, blocks) == [2.5, 5.5]  # not 3.5 to 6.5
    assert times_of(WORDS, events, blocks[1:]) == [5.5]
    assert times_of(WORDS, events, blocks[:0]) == []


def test_borders_of_blocks_can_be_ignored():
    events = words(2.0, 2.6, 4.99, 4.997, 5.0)
    block = pd.DataFrame({"start": [2.0], "duration": [3.0]})
    assert times_of(WORDS, events, block) == []
    start = replace(WORDS, ignore_start_in_block=True)
    assert times_of(start, events, block) == [2.0]
    end = replace(WORDS, ignore_end_in_block=True)
    assert times_of(end, events, block) == [2.6, 4.99]  # 4.997 is sample 600, after the block
    both = replace(start, ignore_end_in_block=True)
    assert times_of(both, events, block) == [2.0, 2.6, 4.99]


@pytest.mark.parametrize("ignore", [False, True])
def test_window_lies_in_the_recording(ignore):
    rule = replace(WORDS, ignore_start_in_block=ignore, ignore_end_in_block=ignore)
    events = words(0.2, 0.4999, 0.5, 7.4916, 7.4961, 9.0)
    assert times_of(rule, events) == [0.5, 7.4916]  # 7.4961 + 2.5 is half a sample after the last
    windows = find_windows(events, EVERYWHERE, rule, 1200, RATE)
    assert windows["first"].min() >= 0
    assert (windows["first"] + 361).max() <= 1200


def test_of_two_anchors_on_one_sample_the_first_counts():
    windows = find_windows(words(3.0, 3.003, 3.0084, 3.009), EVERYWHERE, WORDS, 1200, RATE)
    assert windows["time"].tolist() == [3.0, 3.0084]
    assert windows["first"].tolist() == [300, 301]
    assert windows["word"].tolist() == ["word0", "word2"]


def test_half_a_sample_is_rounded_to_the_even_one():
    starts = [192.5 / 64, 193.5 / 64, 195.4 / 64]
    windows = find_windows(words(*starts), EVERYWHERE, WORDS, 640, 64.0)
    assert windows["first"].tolist() == [192 - 32, 194 - 32, 195 - 32]


def test_segment_carries_its_own_anchor():
    # The third word covers all of the fourth, which begins 20 ms later.
    events = pd.concat(
        [words(1.0, 2.0, 3.0, 3.02), pd.DataFrame([{"kind": "sound", "start": 0.0}])]
    ).reset_index(drop=True)
    events = events.assign(duration=[0.3, 0.3, 1.0, 0.1, 9.0])
    windows = find_windows(events, EVERYWHERE, WORDS, 1200, RATE)
    assert windows["word"].tolist() == ["word0", "word1", "word2", "word3"]
    assert windows["word_index"].tolist() == [0, 1, 2, 3]
    assert windows["event"].tolist() == [0, 1, 2, 3]
    assert set(windows["word_sequence"]) == {"a sentence"}


def test_anchors_can_be_chosen_by_a_query():
    events = words(1.0, 2.0, 3.0)
    rule = WindowRule(condition='word == "word1"')
    assert times_of(rule, events) == [2.0]
    assert times_of(WindowRule(condition="word_index >= 1"), events) == [2.0, 3.0]
    assert times_of(WindowRule(condition="word_index == 7"), events) == []
    with pytest.raises(ValueError, match=r"condition='wrd == 1'.*wrd.*Columns: \['kind', 'start'"):
        times_of(WindowRule(condition="wrd == 1"), events)
    with pytest.raises(ValueError, match="condition='word ==' can't be evaluated"):
        times_of(WindowRule(condition="word =="), events)
    with pytest.raises(ValueError, match="can't be evaluated"):  # nor what isn't of the table
        times_of(WindowRule(condition="@pd.io.common.os.getpid() == 1"), events)


def test_recording_without_such_events_has_no_windows():
    assert times_of(WindowRule(condition="phoneme"), words(1.0)) == []


def test_impossible_rules_are_refused():
    with pytest.raises(ValueError, match=r"dset\.tmin=2\.5 s must come before dset\.tmax=2\.5 s"):
        WindowRule(tmin=2.5)
    with pytest.raises(ValueError, match="condition=0: the stride in seconds must be positive"):
        WindowRule(condition=0)


# Delay


def test_brain_is_paired_with_the_sound_150_ms_earlier():
    meg = torch.arange(361.0).expand(2, 3, 361)
    features = torch.arange(361.0).expand(2, 4, 361)
    aligned, target = align_to_delay(meg, features, 0.15, 120.0)
    assert aligned.shape == (2, 3, 343)
    assert target.shape == (2, 4, 343)
    assert (aligned[0, 0] - target[0, 0] == 18).all()
    assert (target[0, 0, 0], aligned[0, 0, -1]) == (0, 360)


@pytest.mark.parametrize(("delay", "n"), [(0.0, 0), (0.05, 6), (0.3, 36), (0.0099, 1), (3.0, 360)])
def test_delay_is_whole_samples(delay, n):
    meg, features = torch.zeros(1, 1, 361), torch.zeros(1, 2, 361)
    aligned, target = align_to_delay(meg, features, delay, 120.0)
    assert aligned.shape[-1] == target.shape[-1] == 361 - n


@pytest.mark.parametrize("delay", [-0.15, 3.01])
def test_delay_that_leaves_nothing_is_refused(delay):
    with pytest.raises(ValueError, match=r"Choose 0 to 3\.00 s \(task\.offset_meg_ms\)"):
        align_to_delay(torch.zeros(1, 1, 361), torch.zeros(1, 1, 361), delay, 120.0)


# Splits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("segments")


@pytest.fixture(scope="module")
def stored(folder: Path) -> Cache:
    return Cache(folder / "cache")


@pytest.fixture(scope="module")
def prepared(folder: Path, stored: Cache) -> list[Prepared]:
    """Three people hear a story; the second twice, with fewer sensors."""
    events = tell_story(folder)
    recordings = [
        SmallRecording(stored, events, "r0", "s2", seed=0),
        SmallRecording(stored, events, "r1", "s1", seed=1, n_sensors=4),
        SmallRecording(stored, events, "r2", "s1", seed=2, n_sensors=4),
        SmallRecording(stored, events, "r3", "s0", seed=3),
    ]
    return prepare(recordings, SignalSettings(), BlockRule())


@pytest.fixture(scope="module")
def splits(prepared: list[Prepared], stored: Cache) -> Splits:
    return make_splits([], stored, ["MelSpectrum", "WordHash"], prepared=prepared)


def test_batch_holds_the_signal_of_its_window(splits, prepared):
    dataset = splits.datasets["train"]
    rows = torch.tensor([0, len(dataset) // 2, len(dataset) - 1])
    batch = dataset.gather(rows)
    assert batch.meg.shape == (3, 6, 361)
    assert batch.features.shape == (3, 21, 361)
    assert batch.mask.shape == (3, 1, 361)
    assert batch.row.tolist() == rows.tolist()
    for place, row in enumerate(rows.tolist()):
        recording, first = dataset.table.loc[row, ["recording", "first"]]
        window = prepared[recording].signal.data[first : first + 361].T
        window = window - window[:, :61].mean(axis=1, keepdims=True)
        np.testing.assert_allclose(batch.meg[place, : len(window)], window, atol=1e-11)
        assert (batch.meg[place, len(window) :] == 0).all()
        assert batch.recording_index[place] == recording


def test_mean_over_the_baseline_is_zero(splits, prepared, stored):
    batch = splits.datasets["test"].gather(torch.arange(20))
    scale = batch.meg.std().item()
    assert batch.meg[..., :61].mean(dim=-1).abs().max() < 1e-6 * scale
    assert batch.meg[..., :60].mean(dim=-1).abs().max() > 1e-3 * scale
    without = make_splits([], stored, prepared=prepared, baseline=False).datasets["test"]
    raw = without.gather(torch.arange(20)).meg
    torch.testing.assert_close(raw - raw[..., :61].mean(dim=-1, keepdim=True), batch.meg)
    assert raw[..., :61].mean(dim=-1).abs().max() > 1e-3 * scale


def test_window_that_begins_with_its_anchor_has_a_baseline_of_one_sample(prepared, stored):
    rules = {split: replace(rule, tmin=0.0) for split, rule in RULES.items()}
    dataset = make_splits([], stored, prepared=prepared, rules=rules).datasets["train"]
    assert (dataset.gather(torch.arange(5)).meg[..., 0] == 0).all()
    rules = {split: replace(rule, tmin=0.5) for split, rule in RULES.items()}
    dataset = make_splits([], stored, prepared=prepared, rules=rules).datasets["train"]
    assert (dataset.gather(torch.arange(5)).meg[:, 0, :] != 0).all()  # none: all is response


def test_batch_holds_what_was_heard_in_its_window(splits, prepared):
    dataset = splits.datasets["test"]
    batch = dataset.gather(torch.arange(len(dataset)))
    hashes, mask = batch.features[:, 20], batch.mask[:, 0]
    assert torch.equal(hashes > 0, mask)
    assert 0.8 < mask.float().mean() < 1
    for row in (0, 7, len(dataset) - 1):
        recording, first, word = dataset.table.loc[row, ["recording", "first", "word"]]
        events = prepared[recording].events
        events = events[events["kind"] == "word"]
        number_of = dict(zip(events["word"], WordHash().values(events)[:, 0], strict=True))
        for sample in range(361):
            time = (first + sample) / RATE + 1e-9
            now = events[(events["start"] <= time) & (events["start"] + events["duration"] > time)]
            assert hashes[row, sample] == (number_of[now["word"].iloc[-1]] if len(now) else 0)
        assert hashes[row, 61] == number_of[word]  # 60 is the anchor, or just before its onset


def test_every_segment_lies_in_a_block_of_its_split(splits, prepared):
    for split, dataset in splits.datasets.items():
        for _, segment in dataset.table.iterrows():
            blocks = prepared[segment["recording"]].blocks
            blocks = blocks[blocks["split"] == split]
            begin, end = segment["first"] / RATE, (segment["first"] + 360) / RATE
            stops = blocks["start"] + blocks["duration"]
            assert ((blocks["start"] <= begin + 1 / RATE) & (end <= stops + 1 / RATE)).any()


def test_splits_share_no_sample(splits):
    seen = {
        split: set(dataset.samples(torch.arange(len(dataset))).flatten().tolist())
        for split, dataset in splits.datasets.items()
    }
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert seen[one]
        assert not seen[one] & seen[other]


def test_subjects_and_layouts_have_an_index(splits):
    assert splits.subjects == ["small/s0", "small/s1", "small/s2"]
    assert splits.recordings == ["small/r0", "small/r1", "small/r2", "small/r3"]
    table = splits.datasets["train"].table
    pairs = table.groupby("recording")[["subject", "layout"]].first()
    assert pairs["subject"].tolist() == [2, 1, 1, 0]
    assert pairs["layout"].tolist() == [0, 1, 1, 0]
    assert splits.layouts.shape == (2, 6, 2)
    assert (splits.layouts[1, 4:] == -0.1).all()  # padded
    assert (splits.layouts[0] >= 0).all()
    batch = splits.datasets["train"].gather(torch.arange(len(table)))
    assert batch.subject_index.tolist() == table["subject"].tolist()
    assert batch.layout_index.tolist() == table["layout"].tolist()


def test_number_of_test_subjects_can_be_limited(splits, prepared, stored):
    def subjects(**options: int) -> dict[str, set[int]]:
        few = make_splits([], stored, prepared=prepared, **options)
        assert few.subjects == splits.subjects  # the model keeps room for all
        return {split: set(data.table["subject"]) for split, data in few.datasets.items()}

    assert subjects() == {"train": {0, 1, 2}, "valid": {0, 1, 2}, "test": {0, 1, 2}}
    assert subjects(n_subjects_test=1) == {"train": {0, 1, 2}, "valid": {0, 1, 2}, "test": {0}}


def test_mask_can_be_1_throughout(prepared, stored):
    dataset = make_splits([], stored, prepared=prepared, event_mask=False).datasets["train"]
    assert dataset.gather(torch.arange(10)).mask.all()


def test_recording_without_training_segments_is_left_out(splits, prepared, stored, caplog):
    untrained = replace(prepared[1], blocks=prepared[1].blocks.assign(split="test"))
    with caplog.at_level(logging.WARNING):
        few = make_splits([], stored, prepared=[prepared[0], untrained])
    for dataset in few.datasets.values():
        assert set(dataset.table["recording"]) == {0}
    assert "small/r1: no segments in train (0 blocks)" in caplog.text
    assert "small/r1: no training segments, so left out of test" in caplog.text
    assert few.recordings == ["small/r0", "small/r1"]


def test_recording_without_test_segments_is_trained_on(prepared, stored, caplog):
    untested = replace(prepared[1], blocks=prepared[1].blocks.assign(split="train"))
    few = make_splits([], stored, prepared=[prepared[0], untested])
    assert set(few.datasets["train"].table["recording"]) == {0, 1}
    assert set(few.datasets["test"].table["recording"]) == {0}
    assert "small/r1: no segments in test (0 blocks)" in caplog.text


def test_empty_split_is_an_error_unless_allowed(prepared, stored):
    all_train = [replace(item, blocks=item.blocks.assign(split="train")) for item in prepared]
    with pytest.raises(DataError, match=r"valid split has no segments: 0 block\(s\) in 4 record"):
        make_splits([], stored, prepared=all_train)
    few = make_splits([], stored, prepared=all_train, allow_empty_split=True)
    assert {split: len(data) > 0 for split, data in few.datasets.items()} == {
        "train": True,
        "valid": False,
        "test": False,
    }
    assert len(few.datasets["test"].gather(torch.arange(0))) == 0
    short = {split: replace(rule, tmax=500.0) for split, rule in RULES.items()}
    with pytest.raises(DataError, match=r"train split has.*windows of -0\.5\.\.500\.0 s"):
        make_splits([], stored, prepared=prepared, rules=short)


def test_same_word_of_the_same_sentence_has_one_identity(splits):
    table = splits.datasets["test"].table
    ids = identify(table)
    assert ids.dtype == np.int64
    named = table["word_sequence"] + table["word_index"].astype(str)
    assert len(np.unique(ids)) == named.nunique()
    of_first = ids[table["recording"] == 0]
    for recording in (1, 2, 3):
        np.testing.assert_array_equal(ids[table["recording"] == recording], of_first)


def test_same_moment_of_the_same_sound_has_one_identity(splits):
    table = splits.datasets["train"].table  # anchored every half second
    silent = table["sound"].isna()
    assert silent.sum() == 8  # the first and the last of each recording are nobody else's
    n_of_one = ((table["recording"] == 0) & ~silent).sum()
    assert len(np.unique(identify(table))) == n_of_one + 8


@pytest.mark.parametrize("grouping", ["recording_time", "stimulus_time"])
def test_lead_in_moves_sentences_between_splits_as_published_and_not_in_stimulus_time(
    folder, stored, grouping
):
    split_of: dict[str, set[str]] = {}
    for number, lead_in in enumerate((0.0, 3.7, 5.9, 11.3, 40.0)):
        events = tell_story(folder, lead_in=lead_in, n_sentences=60, name="long")
        recording = SmallRecording(stored, events, f"lead{number}", n_sensors=2)
        rule = BlockRule(min_block_duration=9.0, block_grouping=grouping)
        item = prepare([recording], SignalSettings(), rule)[0]
        onsets = item.events[(item.events["kind"] == "word") & (item.events["word_index"] == 0)]
        for _, word in onsets.iterrows():
            within = item.blocks[item.blocks["start"] <= word["start"] + 1e-6].iloc[-1]
            split_of.setdefault(word["word_sequence"], set()).add(within["split"])
    assert len(split_of) == 60
    moved = sum(len(found) > 1 for found in split_of.values())
    assert moved > 0 if grouping == "recording_time" else moved == 0


def test_stimulus_time_keeps_windows_apart_too(folder, stored):
    recordings = []
    for number, lead_in in enumerate((0.0, 3.7, 40.0)):
        events = tell_story(folder, lead_in=lead_in, n_sentences=60, name="long")
        recordings.append(SmallRecording(stored, events, f"lead{number}", f"s{number}", number))
    rule = BlockRule(min_block_duration=9.0, block_grouping="stimulus_time")
    splits = make_splits(recordings, stored, blocks=rule)
    heard = {  # seconds of the story, in tenths
        split: {
            round(10 * (time + second))
            for time in dataset.table["sound_time"].dropna()
            for second in np.arange(-0.4, 2.5, 0.1)
        }
        for split, dataset in splits.datasets.items()
    }
    assert not heard["train"] & heard["test"]
    assert not heard["train"] & heard["valid"]


# Preparing


def test_broken_recordings_are_set_aside_and_the_rest_goes_on(folder, stored, caplog):
    events = tell_story(folder)
    short = write_sound(folder / "short.wav", 30.0)
    wrong = events.assign(filepath=events["filepath"].where(events["kind"] != "sound", str(short)))
    gone = wrong.replace(str(short), str(folder / "gone.wav"))
    recordings = [
        SmallRecording(stored, events, "good"),
        SmallRecording(stored, wrong, "wrong"),
        SmallRecording(stored, gone, "gone"),
        SmallRecording(stored, events.assign(word_index=1), "blockless"),
    ]
    with caplog.at_level(logging.WARNING):
        ready = prepare(recordings, SignalSettings(), BlockRule())
    assert [str(item.recording) for item in ready] == ["small/good"]
    assert "3 recording(s) set aside, 1 used" in caplog.text
    assert "Set aside: small/wrong: the sound at 1.000 s needs" in caplog.text
    assert "short.wav, which lasts 30.000 s" in caplog.text
    assert "Set aside: small/gone:" in caplog.text
    assert "gone.wav is missing" in caplog.text
    assert "Set aside: small/blockless: No event opens a block" in caplog.text
    with pytest.raises(DataError, match="small/wrong: the sound at"):
        prepare(recordings, SignalSettings(), BlockRule(), on_bad_recording="error")
    with pytest.raises(DataError, match=r"(?s)No recording can be used:.*wrong.*gone.*blockless"):
        prepare(recordings[1:], SignalSettings(), BlockRule())
    with pytest.raises(DataError, match="the selection is empty"):
        prepare([], SignalSettings(), BlockRule())


def test_unknown_choices_are_named(stored):
    with pytest.raises(ValueError, match=r"block_grouping='stimulus'.*mean 'stimulus_time'"):
        BlockRule(block_grouping="stimulus")
    with pytest.raises(ValueError, match=r"on_bad_recording='ignore'.*error, skip"):
        prepare([], SignalSettings(), BlockRule(), on_bad_recording="ignore")


def test_sounds_are_cut_where_blocks_end(prepared, folder, stored):
    item = prepared[0]
    sounds = item.events[item.events["kind"] == "sound"]
    starts = item.blocks["start"].to_numpy()[1:]
    np.testing.assert_allclose(sounds["start"].to_numpy()[1:], starts)
    np.testing.assert_allclose(sounds["offset"], sounds["start"] - 1.0, atol=1e-9)
    whole = BlockRule(split_wav_as_block=False)
    uncut = prepare([item.recording], SignalSettings(), whole)[0].events
    assert (uncut["kind"] == "sound").sum() == 1


# Controls


def test_noise_keeps_spectrum_and_covariance_and_nothing_else(prepared):
    noisy = apply_control(prepared, "noise", seed=0)
    for before, after in zip(prepared, noisy, strict=True):
        old = np.asarray(before.signal.data, dtype=np.float64)
        new = np.asarray(after.signal.data, dtype=np.float64)
        assert new.shape == old.shape
        assert after.signal.data.dtype == np.float32
        power, kept = np.abs(np.fft.rfft(old, axis=0)), np.abs(np.fft.rfft(new, axis=0))
        np.testing.assert_allclose(kept, power, atol=1e-5 * power.max())
        np.testing.assert_allclose(new.mean(axis=0), old.mean(axis=0), atol=1e-4 * old.std())
        covariance = np.cov(old.T)
        np.testing.assert_allclose(np.cov(new.T), covariance, atol=1e-4 * covariance.max())
        for sensor in range(old.shape[1]):
            assert abs(np.corrcoef(old[:, sensor], new[:, sensor])[0, 1]) < 0.1
    assert abs(np.corrcoef(noisy[0].signal.data[:, 0], noisy[1].signal.data[:, 0])[0, 1]) < 0.1


def test_shuffled_is_a_shift_by_a_third_to_two_thirds(prepared):
    for before, after in zip(prepared, apply_control(prepared, "shuffled", seed=0), strict=True):
        old, new = np.asarray(before.signal.data), np.asarray(after.signal.data)
        shift = int(np.flatnonzero((new == old[0]).all(axis=1))[0])
        assert len(old) / 3 <= shift <= 2 * len(old) / 3
        np.testing.assert_array_equal(np.roll(old, shift, axis=0), new)
        pd.testing.assert_frame_equal(after.events, before.events)
        pd.testing.assert_frame_equal(after.blocks, before.blocks)


@pytest.mark.parametrize("control", ["noise", "shuffled"])
def test_control_follows_from_seed_and_recording_alone(prepared, control):
    one = apply_control(prepared, control, seed=3)
    alone = apply_control(prepared[2:], control, seed=3)
    np.testing.assert_array_equal(one[2].signal.data, alone[0].signal.data)
    other = apply_control(prepared, control, seed=4)
    assert (other[2].signal.data != one[2].signal.data).any()


def test_no_control_changes_nothing(prepared):
    assert apply_control(prepared, "none", seed=0) == prepared
    with pytest.raises(ValueError, match=r"dset\.control='noisy'.*mean 'noise'"):
        apply_control(prepared, "noisy", seed=0)


def test_blocks_of_filtered_out_sentences_are_left_out_of_a_split(folder, stored):
    events = tell_story(folder, lead_in=1.0, n_sentences=40, name="filtered")
    recording = SmallRecording(stored, events, "filtered", n_sensors=2)
    rule = BlockRule(min_block_duration=0)
    whole = prepare([recording], SignalSettings(), rule)[0].blocks
    sentences = events["word_sequence"].dropna().unique()
    recording.events_filter = f"word_sequence == {sentences[3]!r}"
    item = prepare([recording], SignalSettings(), rule)[0]
    assert item.blocks["uid"].tolist() == [whole["uid"][3]]
    assert item.blocks["split"].tolist() == [whole["split"][3]]
    words = item.events[item.events["kind"] == "word"]
    assert set(words["word_sequence"]) == {sentences[3]}
