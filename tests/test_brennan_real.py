"""Alice: the real tables of trials give the known times, counts, blocks and splits."""

from collections import Counter

import numpy as np
import pytest
from alice_events import blocks_of, split_of_words, words_of
from fixtures import brennan

from bm.events import UNLABELLED, create_blocks
from bm.events.blocks import SPLITS
from bm.segments.windows import WindowRule, find_windows
from bm.studies import from_selection
from bm.studies.alice import read_story

SECONDS = {"S01": 733.048, "S02": 734.0, "S24": 731.0, "S37": 727.45}
ORDER = "0222222222002220222202222222122122221212122212222220222112"  # 0 test, 1 valid, 2 train
WORDS_OF_SEGMENTS = [174, 177, 184, 214, 193, 197, 178, 175, 156, 187, 157, 137]


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


def selection(root, **options):
    return {"study": "brennan2019", "path": root, **options}


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
    complete, part = (split_of_words(real[False][one], True) for one in ("S01", "S24"))
    assert len(part) == 1902  # without the rest of a sentence that began in the lost sound
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
