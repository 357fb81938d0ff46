"""Events, blocks and splits: the published rules with their check values, and what was mended."""

import logging
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bm.core.messages import DataError
from bm.events import (
    assign_splits,
    create_blocks,
    cut_sounds_at_blocks,
    merge_blocks,
    read_events,
    validate_events,
    write_events,
)

WAV_DURATIONS = [57.541, 60.845, 63.259, 69.989, 66.273, 63.778]
WAV_DURATIONS += [62.897, 57.311, 57.226, 61.270, 56.170, 47.0]  # of the last only the order counts


def word_table(sentences: list[str], start: float = 0.0, spacing: float = 0.5) -> pd.DataFrame:
    """Words spoken one after the other, each lasting 0.4 s."""
    rows = []
    for sentence in sentences:
        for index, word in enumerate(sentence.split()):
            rows.append((word, index, start + spacing * len(rows)))
    table = pd.DataFrame(rows, columns=["word", "word_index", "start"])
    return table.assign(kind="word", duration=0.4, condition="sentence")


def as_digits(blocks: pd.DataFrame) -> str:
    digit = {"test": "0", "valid": "1", "train": "2"}
    return "".join(digit[split] for split in blocks["split"])


def read_alice(path: Path) -> pd.DataFrame:
    """Words of chapter one of Alice on one timeline: the 12 wav files played without a pause."""
    table = pd.read_csv(path, keep_default_na=False, encoding="latin-1")
    wav_starts = np.cumsum([0.0, *WAV_DURATIONS[:-1]])
    start = wav_starts[table["Segment"] - 1] + table["onset"] + 3.0
    return pd.DataFrame(
        {
            "kind": "word",
            "start": start,
            "duration": table["offset"] - table["onset"],
            "word": table["Word"],
            "word_index": table["Position"] - 1,
            "condition": "sentence",
        }
    )


# Blocks


def test_block_opens_at_each_first_word_and_last_one_never_ends():
    blocks = create_blocks(word_table(["a b c", "d e"], start=2.0))
    assert blocks["start"].tolist() == [2.0, 3.5]
    assert blocks["duration"].tolist() == [1.5, np.inf]
    assert blocks["uid"].tolist() == ["a b c", "d e"]
    assert set(blocks["kind"]) == {"block"}


def test_word_that_runs_over_a_border_names_no_block():
    events = word_table(["a b c", "d e"])
    events.loc[2, "duration"] = 0.6  # "c" starts in the first block and stops in the second
    assert create_blocks(events)["uid"].tolist() == ["a b", "d e"]
    events.loc[2, "duration"] = 0.5  # it ends exactly where the next block begins: still out
    assert create_blocks(events)["uid"].tolist() == ["a b", "d e"]


def test_block_whose_only_word_runs_over_the_border_is_named_by_it():
    events = word_table(["a", "b", "c"])
    events.loc[:1, "duration"] = 1.0
    assert create_blocks(events)["uid"].tolist() == ["a", "b", "c"]


def test_phonemes_and_other_conditions_add_no_words_to_a_name():
    events = word_table(["a b c d"])
    events.loc[1, "kind"] = "phoneme"
    events.loc[2, "condition"] = "pseudo_words"
    assert create_blocks(events)["uid"].tolist() == ["a d"]


@pytest.mark.parametrize(
    ("uids", "expected"),
    [
        (["s1", "s1", "s1", "s2", "s2"], ["s1", "s2"]),
        ([61.0, 61.0, 61.0, 62.0, 62.0], ["61", "62"]),  # floats only because of a gap elsewhere
        (["s1", "s1", "s9", "s2", "s2"], ["a b c", "s2"]),  # not unique: the words decide
        ([np.nan, np.nan, np.nan, "s2", "s2"], ["a b c", "s2"]),
        (["s1", "s1", np.nan, "s2", "s2"], ["a b c", "s2"]),  # NaN counts as a value
    ],
)
def test_sequence_uid_names_a_block_where_it_is_unique(uids, expected):
    events = word_table(["a b c", "d e"]).assign(sequence_uid=uids)
    assert create_blocks(events)["uid"].tolist() == expected


def test_sound_blocks_are_named_by_file_and_place_on_any_machine():
    def names(folder: str) -> list[str]:
        sounds = pd.DataFrame({"kind": "sound", "start": [0.0, 10.0, 20.0], "duration": 10.0})
        sounds["filepath"] = [f"{folder}/x.wav", f"{folder}/x.wav", f"{folder}/y.wav"]
        sounds["offset"] = [0.0, 10.0, 0.0]
        return create_blocks(sounds, "sound")["uid"].tolist()

    assert names("/data") == ["x.wav 0.000", "x.wav 10.000", "y.wav 0.000"]
    assert names("/data") == names("/elsewhere/of/mine")


def test_read_sentences_open_blocks_beside_sounds():
    events = word_table(["a b", "c d"]).assign(modality=["visual", "visual", "audio", "audio"])
    events["filepath"] = np.nan
    sound = {"kind": "sound", "start": 1.0, "duration": 1.0, "filepath": "s.wav"}
    events = pd.concat([events, pd.DataFrame([sound])]).sort_values("start", kind="stable")
    blocks = create_blocks(events.reset_index(drop=True), "sentence_or_sound")
    assert blocks["start"].tolist() == [0.0, 1.0]


def test_wrong_block_rule_names_the_right_one():
    with pytest.raises(ValueError, match=r"Did you mean 'sentence'.*sentence_or_sound"):
        create_blocks(word_table(["a b"]), "sentense")  # codespell:ignore


def test_recording_without_a_first_word_says_so():
    with pytest.raises(DataError, match="No event opens a block"):
        create_blocks(word_table(["a b c"]).iloc[1:])


def test_two_blocks_at_one_time_are_refused():
    events = word_table(["a", "b"]).assign(start=3.25)
    with pytest.raises(DataError, match=r"Two blocks start at 3\.250 s"):
        create_blocks(events)


# Merging


def test_merged_blocks_cover_the_recording_without_a_gap():
    words = " ".join("abcdefghij")  # 5 s a sentence
    merged = merge_blocks(create_blocks(word_table([words] * 5, start=2.0)))
    # closes only *after* more than 6 s, counted from 0: the first holds the lead-in
    assert merged["start"].tolist() == [0.0, 7.0, 17.0]
    assert merged["duration"].tolist() == [7.0, 10.0, np.inf]
    assert merged["uid"].tolist() == [words, f"{words},{words}", f"{words},{words}"]


def test_block_of_exactly_the_minimum_is_merged_on():
    twelve = " ".join("abcdefghijkl")  # 6 s
    merged = merge_blocks(create_blocks(word_table([twelve] * 3)))
    assert merged["start"].tolist() == [0.0, 12.0]


def test_no_minimum_leaves_blocks_as_they_are():
    blocks = create_blocks(word_table(["a b", "c d"], start=1.0))
    pd.testing.assert_frame_equal(merge_blocks(blocks, 0), blocks)


def test_stimulus_time_gives_every_listener_the_same_groups_and_published_time_does_not():
    generator = random.Random(5)
    story = [" ".join("abcdefg"[: generator.randint(2, 7)]) + f" x{i}" for i in range(40)]

    def partition(lead_in: float, by_stimulus: bool) -> dict[str, str]:
        """Split of each sentence."""
        events = word_table(story, start=lead_in)
        merged = merge_blocks(create_blocks(events), 6.0, events if by_stimulus else None)
        merged = assign_splits(merged)
        pairs = zip(merged["uid"], merged["split"], strict=True)
        return {sentence: split for uid, split in pairs for sentence in uid.split(",")}

    lead_ins = [0.1, 2.0, 4.7, 23.506, 147.03]
    assert len({tuple(sorted(partition(t, False).items())) for t in lead_ins}) > 1
    assert len({tuple(sorted(partition(t, True).items())) for t in lead_ins}) == 1
    assert set(partition(0.1, True).values()) == {"test", "valid", "train"}


def test_stimulus_time_never_joins_two_sounds():
    events = word_table(["a b c", "d e f", "g h i", "j k l"])
    sounds = {"kind": "sound", "start": [0.0, 3.0], "duration": 3.0, "filepath": ["x.wav", "y.wav"]}
    both = pd.concat([pd.DataFrame(sounds), events]).sort_values("start", kind="stable")
    merged = merge_blocks(create_blocks(both.reset_index(drop=True)), 6.0, both)
    assert merged["uid"].tolist() == ["a b c,d e f", "g h i,j k l"]


# Splits


@pytest.mark.parametrize(
    ("uid", "score", "split"),
    [
        ("a", 0.005975049809558652, "test"),
        ("61", 0.09397122810163017, "test"),
        ("61.0", 0.5083300790462846, "train"),
        ("61,62", 0.05497654815380704, "test"),
        ("block0", 0.4032319732170301, "train"),
        ("the cat sat", 0.7438132081908212, "train"),
    ],
)
def test_split_follows_the_published_hash(uid, score, split):
    def split_with(test_ratio: float) -> str:
        return assign_splits(pd.DataFrame({"uid": [uid]}), test_ratio, 0.0)["split"].item()

    assert assign_splits(pd.DataFrame({"uid": [uid]}))["split"].item() == split
    # the score itself: the smallest share of test that takes the block
    assert split_with(score) == "train"
    assert split_with(np.nextafter(score, 1.0)) == "test"


def test_split_depends_on_content_alone():
    uids = [f"sentence {i}" for i in range(300)]
    shuffled = random.Random(0).sample(uids, len(uids))
    one, other = (
        assign_splits(pd.DataFrame({"uid": order})).set_index("uid")["split"]
        for order in (uids, shuffled)
    )
    assert one.to_dict() == other.to_dict()
    counts = one.value_counts()
    # three standard errors of a binomial share
    for name, ratio in (("test", 0.2), ("valid", 0.1), ("train", 0.7)):
        assert abs(counts[name] / 300 - ratio) < 3 * np.sqrt(ratio * (1 - ratio) / 300)


def test_removed_blocks_come_out_of_train():
    blocks = pd.DataFrame({"uid": [f"sentence {i}" for i in range(300)]})
    whole, thinned = assign_splits(blocks), assign_splits(blocks, remove_ratio=0.3)
    for name in ("test", "valid"):
        assert (whole["split"] == name).equals(thinned["split"] == name)
    assert set(whole["split"][thinned["split"] == "removed"]) == {"train"}


def test_other_seed_gives_another_split():
    blocks = pd.DataFrame({"uid": [f"sentence {i}" for i in range(50)]})
    assert as_digits(assign_splits(blocks)) != as_digits(assign_splits(blocks, seed=13))


@pytest.mark.parametrize("ratios", [(0.6, 0.5, 0.0), (-0.1, 0.1, 0.0), (0.5, 0.2, 0.3)])
def test_ratios_must_leave_something_to_train_on(ratios):
    with pytest.raises(ValueError, match="Split ratios"):
        assign_splits(pd.DataFrame({"uid": ["a"]}), *ratios)


def test_too_few_blocks_are_named_with_the_key_to_change():
    with pytest.raises(ValueError, match=r"min_n_blocks_per_split=2.*'test': 1"):
        assign_splits(pd.DataFrame({"uid": ["a", "block0", "the cat sat"]}), min_blocks=2)


def test_alice_has_the_published_blocks(shared_data):
    blocks = create_blocks(read_alice(shared_data / "brennan2019" / "AliceChapterOne-EEG.csv"))
    assert len(blocks) == 84
    merged = assign_splits(merge_blocks(blocks))
    assert as_digits(merged) == "0222222222002220222202222222122122221212122212222220222112"


# Sounds


def sound_table(start: float = 0.0, duration: float = 30.0, **more: object) -> pd.DataFrame:
    sound = {"kind": "sound", "start": start, "duration": duration, "filepath": "s.wav"}
    return pd.DataFrame([{**sound, "offset": 0.0, **more}])


def test_sound_is_cut_where_blocks_begin_and_end():
    blocks = pd.DataFrame({"start": [0.0, 20.0], "duration": [10.0, 10.0]})
    pieces = cut_sounds_at_blocks(sound_table(), blocks)
    assert pieces["start"].tolist() == [0.0, 10.0, 20.0]
    assert pieces["duration"].tolist() == [10.0, 10.0, 10.0]
    assert pieces["offset"].tolist() == [0.0, 10.0, 20.0]


def test_border_within_the_margin_does_not_cut():
    blocks = pd.DataFrame({"start": [0.05, 29.95], "duration": [29.9, np.inf]})
    pieces = cut_sounds_at_blocks(sound_table(), blocks)
    assert pieces[["start", "duration"]].to_numpy().tolist() == [[0.0, 30.0]]


def test_pieces_of_a_cut_sound_add_up_and_stay_in_time_order():
    events = pd.concat([sound_table(1.5, 57.0, offset=4.0), word_table(["a b c"], start=20.0)])
    events = events.sort_values("start", kind="stable", ignore_index=True)
    blocks = pd.DataFrame({"start": [3.0, 12.25, 30.0], "duration": [9.25, 10.0, np.inf]})
    cut = cut_sounds_at_blocks(events, blocks)
    pieces = cut[cut["kind"] == "sound"]
    assert pieces["start"].tolist() == [1.5, 3.0, 12.25, 22.25, 30.0]
    assert pieces["duration"].sum() == pytest.approx(57.0)
    np.testing.assert_allclose(pieces["offset"] - pieces["start"], 2.5)
    assert cut["start"].is_monotonic_increasing
    assert (cut["kind"] == "word").sum() == 3


def test_whole_numbers_as_offsets_are_cut_exactly():
    events = sound_table().astype({"start": int, "duration": int, "offset": int})
    blocks = pd.DataFrame({"start": [0.0, 10.5], "duration": [10.5, np.inf]})
    assert cut_sounds_at_blocks(events, blocks)["offset"].tolist() == [0.0, 10.5]


# The table


def test_events_come_back_in_time_order_with_repeats_and_outsiders_counted(caplog):
    events = word_table(["a b c d"]).iloc[[2, 0, 1, 1, 3]]
    outside = word_table(["y z"], start=10.0).assign(start=[-0.1, 10.0])
    with caplog.at_level(logging.WARNING):
        clean = validate_events(pd.concat([events, outside]), 10.0, "rec 1")
    assert clean["word"].tolist() == ["a", "b", "c", "d"]
    assert clean.index.tolist() == [0, 1, 2, 3]
    log = caplog.text
    assert "rec 1: events were not in time order" in log
    assert "1 repeated event(s) dropped (first at 0.500 s)" in log
    assert "2 event(s) outside the recording's 10.000 s dropped (first at -0.100 s)" in log


def test_clean_events_pass_unchanged_and_unlogged(caplog):
    events = word_table(["a b c d"])
    clean = validate_events(events, 10.0, "rec 1")
    pd.testing.assert_frame_equal(clean, events)
    assert not caplog.records


def test_sound_that_was_playing_already_is_cut_at_the_start_of_the_recording(caplog):
    sounds = pd.concat([sound_table(-0.5, 4.0), sound_table(-9.0, 4.0)])
    clean = validate_events(sounds, 10.0, "rec 1")
    assert clean[["start", "duration", "offset"]].to_numpy().tolist() == [[0.0, 3.5, 0.5]]
    assert "1 sound(s) began up to 0.500 s before" in caplog.text
    assert "1 event(s) outside" in caplog.text


def test_sound_without_an_offset_begins_with_its_file():
    clean = validate_events(sound_table().drop(columns="offset"), 40.0, "rec 1")
    assert clean["offset"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": ["0", "half past", "1"]}, r"row 1: start='half past' is not a time"),
        ({"start": [0.0, 1.0, np.inf]}, r"row 2: start='inf' is not a time"),
        ({"duration": [0.4, -0.4, 0.4]}, r"row 1: duration='-0.4' is not a length of time"),
        ({"duration": [0.4, 0.4, np.nan]}, r"row 2: duration='nan' .*\(1 such row"),
        ({"duration": [0.4, np.inf, 0.4]}, r"row 1: duration='inf'"),
        ({"word": ["a", "", "c"]}, r"row 1: a word without word \(1 in all\)"),
        ({"word": ["a", np.nan, None]}, r"row 1: a word without word \(2 in all\)"),
        ({"kind": ["word", "word", None]}, r"row 2 has no kind"),
        ({"kind": ["word", "phoneme", "word"]}, r"phoneme events need a column 'phoneme'"),
    ],
)
def test_unusable_event_is_named_by_source_and_row(changes, message):
    with pytest.raises(DataError, match="sub-01.tsv: .*" + message):
        validate_events(word_table(["a b c"]).assign(**changes), 10.0, "sub-01.tsv")


def test_missing_column_gets_a_suggestion():
    events = word_table(["a b"]).rename(columns={"start": "starts"})
    with pytest.raises(DataError, match=r"no column 'start'. Did you mean 'starts'"):
        validate_events(events, 10.0, "sub-01.tsv")


def test_sound_with_an_impossible_offset_is_refused():
    with pytest.raises(DataError, match=r"row 0: offset='-1\.0' is not a place"):
        validate_events(sound_table(offset=-1.0), 40.0, "sub-01.tsv")


def test_words_that_look_missing_survive_the_disk(tmp_path):
    words = "None null NA nan n/a NaN true 61 1e5"
    events = word_table([words])
    events["language"] = ["en", None, *["en"] * 7]
    write_events(events, tmp_path / "events.parquet")
    back = read_events(tmp_path / "events.parquet")
    assert back["word"].tolist() == words.split()
    assert back["language"].isna().tolist() == [False, True, *[False] * 7]
    assert back["start"].tolist() == events["start"].tolist()
