"""MEG-MASC: the real events of two people give the counts, blocks and splits that are known."""

import functools
from collections import Counter

import numpy as np
import pytest
from fixtures.masc import copy_real

from bm.events import assign_splits, create_blocks, merge_blocks
from bm.segments.windows import WindowRule, find_windows
from bm.studies import from_selection

WORDS = WindowRule(condition="word")
STRIDES = WindowRule(condition=0.5)

# rows, words, phonemes, sounds, sequences, words of index 0, vocabulary
COUNTS = {
    "0": (3134, 668, 2462, 4, 52, 38, 345),
    "1": (6622, 1503, 5113, 6, 126, 112, 557),
    "2": (11597, 2637, 8952, 8, 246, 202, 829),
    "3": (17999, 3753, 14234, 12, 252, 225, 1173),
}
CONDITIONS = {
    "0": {"sentence": 613, "word_list": 54, "pseudo_words": 1},
    "1": {"sentence": 1383, "word_list": 120},
    "2": {"sentence": 2359, "word_list": 273, "pseudo_words": 5},
    "3": {"sentence": 3390, "word_list": 361, "pseudo_words": 2},
}
# blocks, merged blocks, of which test, valid, train; segments at words in test blocks
SPLITS = {
    "0": (38, 28, 4, 3, 21, 86),
    "1": (112, 71, 14, 8, 49, 175),
    "2": (202, 113, 29, 16, 68, 507),
    "3": (225, 153, 31, 22, 100, 660),
}
ORDER = {  # 0 test, 1 valid, 2 train
    "0": "1202222220202202222122221222",
    "1": "22222202222222220221202220222122221222122220020220202000202122222102112",
}
# sub-01, session 0, if the signal ended 1 s after the last event: valid, train
N_STRIDES = {"0": (80, 393), "1": (99, 741), "2": (186, 1081), "3": (318, 1839)}
REAL = [("01", task) for task in "0123"] + [("13", task) for task in "012"]


@pytest.fixture(scope="module")
def recordings(shared_data, tmp_path_factory):
    """Recordings of the two people whose real events are at hand, by subject and task."""
    root = tmp_path_factory.mktemp("meg_masc")
    copy_real(shared_data / "meg_masc", root)
    found = from_selection({"study": "gwilliams2022", "path": root}, root / "cache")
    return {(each.subject_uid, each.recording_uid[-1]): each for each in found}


@pytest.fixture(scope="module")
def divided(recordings):
    """Give the events and the blocks of a subject and a task."""

    @functools.cache
    def divide(subject, task):
        events = recordings[subject, task].events()
        return events, assign_splits(merge_blocks(create_blocks(events)))

    return divide


def windows(events, blocks, split, rule, n_samples):
    return find_windows(events, blocks[blocks["split"] == split], rule, n_samples, 120.0)


@pytest.mark.parametrize(("subject", "task"), REAL)
def test_real_events_have_the_known_counts(divided, subject, task):
    events, _ = divided(subject, task)
    words = events[events["kind"] == "word"]
    kinds = Counter(events["kind"])
    assert (
        len(events),
        kinds["word"],
        kinds["phoneme"],
        kinds["sound"],
        words["sequence_id"].nunique(),
        words[words["word_index"] == 0]["sequence_id"].nunique(),
        words["word"].str.lower().nunique(),
    ) == COUNTS[task]
    assert Counter(words["condition"]) == CONDITIONS[task]


@pytest.mark.parametrize(("subject", "task"), REAL)
def test_real_blocks_splits_and_test_segments_are_the_known_ones(
    recordings, divided, subject, task
):
    events, blocks = divided(subject, task)
    of_split = Counter(blocks["split"])
    n_samples = int(recordings[subject, task].raw().n_times * 0.12)
    assert (
        len(create_blocks(events)),
        len(blocks),
        of_split["test"],
        of_split["valid"],
        of_split["train"],
        len(windows(events, blocks, "test", WORDS, n_samples)),
    ) == SPLITS[task]
    if task in ORDER:
        numbers = blocks["split"].map({"test": "0", "valid": "1", "train": "2"})
        assert "".join(numbers) == ORDER[task]


@pytest.mark.parametrize("task", "0123")
def test_strides_of_valid_and_train_are_the_known_ones(divided, task):
    events, blocks = divided("01", task)
    n_samples = int(((events["start"] + events["duration"]).max() + 1) * 120)
    counts = [len(windows(events, blocks, name, STRIDES, n_samples)) for name in ("valid", "train")]
    assert tuple(counts) == N_STRIDES[task]


def test_distinct_test_segments_are_1428_of_699_words(recordings, divided):
    distinct, vocabulary = set(), set()
    for task in "0123":
        n_samples = int(recordings["01", task].raw().n_times * 0.12)
        test = windows(*divided("01", task), "test", WORDS, n_samples)
        keys = zip(test["sequence_id"], test["word_index"], test["word"], strict=True)
        distinct |= {(task, *key) for key in keys}
        vocabulary |= set(test["word"].str.lower())
    assert len(distinct) == 1428
    assert len(vocabulary) == 699


@pytest.mark.parametrize("task", "012")
def test_dictionaries_and_columns_say_the_same(recordings, task):
    columns, dictionaries = (recordings[subject, task].events() for subject in ("01", "13"))
    for label in ("kind", "word", "phoneme", "word_index", "sequence_id", "word_sequence"):
        first, second = (events[label].astype(object) for events in (columns, dictionaries))
        assert first.where(first.notna(), "").equals(second.where(second.notna(), ""))
    first, second = (events[events["kind"] != "sound"] for events in (columns, dictionaries))
    np.testing.assert_allclose(first["duration"], second["duration"], atol=1e-9)
    assert list(columns["filepath"].dropna()) == list(dictionaries["filepath"].dropna())


def test_the_words_none_and_it_s_survive(recordings):
    recording = recordings["13", "2"]
    recording.events()
    again = recording.events()  # from the cache
    none = again[again["word"] == "None"]
    assert len(none) == 1
    assert none["start"].item() == 1053.038
    assert (recordings["01", "0"].events()["word"] == "It s").sum() == 1


def test_sounds_of_the_last_story_are_lower_case_files(recordings):
    files = recordings["01", "3"].events()["filepath"].dropna()
    names = [f"the_black_willow_{number}.wav" for number in range(12)]
    assert [file.rsplit("/", 1)[1] for file in files] == names
