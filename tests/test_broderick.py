"""The Old Man and the Sea: every word has its sentence and its time; broken files are named."""

import json
import sys

import mne
import numpy as np
import pytest
import scipy.io
from fixtures import broderick

from bm.core.cache import Cache
from bm.core.layout import NO_POSITION
from bm.events import assign_splits, create_blocks, merge_blocks
from bm.segments.prepare import BlockRule, SignalSettings, prepare
from bm.segments.windows import WindowRule, find_windows
from bm.studies import from_selection
from bm.studies.broderick2019 import Broderick2019
from bm.studies.transcripts import match_words, sentences_by_words, split_sentences

RECORDINGS = ["1_run1", "1_run2", "1_run10", "2_run1", "2_run2", "10_run1", "10_run2", "10_run10"]


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """A small study with all its traps: root, alignments by run, and a cache that fills up."""
    root = tmp_path_factory.mktemp("oldman")
    return root, broderick.write_study(root), Cache(root / "cache")


@pytest.fixture
def small(tmp_path):
    """One recording without noise: root, and the alignment."""
    return tmp_path, broderick.write_one(tmp_path)


@pytest.fixture(scope="module")
def spacy_model(tmp_path_factory):
    """Folder of a spaCy model whose sentences end with . ! or ?, whatever follows."""
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed: pip install bm[text]")
    model = spacy.blank("en")
    model.add_pipe("sentencizer")
    folder = tmp_path_factory.mktemp("spacy") / "model"
    model.to_disk(folder)
    return str(folder)


SIGNAL = broderick.FIRST_SIGNAL


def selection(root, **options):
    return {"study": "broderick2019", "path": root, **options}


def load(root, cache, **options):
    return next(from_selection(selection(root, **options), cache))


def words_of(events):
    return events[events["kind"] == "word"]


def rewrite(root, alignment):
    (root / "private" / "align1.json").write_text(json.dumps(alignment))


def test_recordings_go_by_numbers_of_subject_and_run(miniature, caplog):
    root, _, cache = miniature
    found = list(from_selection(selection(root), cache))
    assert [each.recording_uid for each in found] == RECORDINGS
    assert [each.subject_uid for each in found] == ["1", "1", "1", "2", "2", "10", "10", "10"]
    assert "1 recording(s) absent, 8 used" in caplog.text
    assert "subjects 19 vs 3; recordings 380 vs 8" in caplog.text


def test_miniature_gives_segments_in_all_splits(miniature):
    root, alignments, cache = miniature
    prepared = prepare(from_selection(selection(root), cache), SignalSettings(), BlockRule())
    assert [item.recording.recording_uid for item in prepared] == RECORDINGS
    counts = {}
    for item in prepared:
        run = int(item.recording.recording_uid.rsplit("run", 1)[1])
        assert len(words_of(item.events)) == len(broderick.heard(alignments[run]))
        for split in ("train", "valid", "test"):
            rule = WindowRule(condition="word" if split == "test" else 0.5)
            blocks = item.blocks[item.blocks["split"] == split]
            windows = find_windows(item.events, blocks, rule, item.signal.n_samples, 120.0)
            counts[split, run] = counts.get((split, run), 0) + len(windows)
    for split in ("train", "valid", "test"):
        assert sum(counts[split, run] for run in alignments) >= 20


def test_signal_has_128_sensors_in_volts_with_positions(miniature):
    root, _, cache = miniature
    recording = load(root, cache)
    raw = recording.raw()
    eeg = mne.pick_types(raw.info, eeg=True)
    names = mne.channels.make_standard_montage("biosemi128").ch_names
    assert [raw.ch_names[pick] for pick in eeg] == names
    assert raw.ch_names[128:] == ["mastoid 1", "mastoid 2"]
    assert raw.info["sfreq"] == 128.0
    stored = scipy.io.loadmat(root / SIGNAL)
    np.testing.assert_allclose(raw.get_data(["B1"])[0], stored["eegData"][:, 32] * 1e-6)
    np.testing.assert_allclose(raw.get_data(["mastoid 2"])[0], stored["mastoids"][:, 1] * 1e-6)
    signal = recording.preprocessed(120.0)
    assert signal.data.shape == (raw.n_times * 15 // 16, 128)
    assert (signal.sensors.positions != NO_POSITION).all()
    assert 15e-6 < signal.data.std() < 25e-6


def test_faithful_signal_is_a_million_million_times_larger(miniature):
    root, _, cache = miniature
    right, published = (load(root, cache, faithful=faithful) for faithful in (False, True))
    np.testing.assert_allclose(published.raw().get_data(), right.raw().get_data() * 1e12)
    resampled = [each.preprocessed(120.0).data for each in (right, published)]
    np.testing.assert_allclose(resampled[0] * 1e6, resampled[1] / 1e6, atol=1e-4)


def test_words_are_heard_when_gentle_says(miniature):
    root, alignments, cache = miniature
    for recording in list(from_selection(selection(root), cache))[:3]:
        expected = broderick.heard(alignments[int(recording.recording_uid.rsplit("run", 1)[1])])
        words = words_of(recording.events())
        assert list(words["word"]) == [word["word"] for word in expected]
        np.testing.assert_allclose(words["start"], [word["start"] for word in expected])
        ends = [word["end"] for word in expected]
        np.testing.assert_allclose(words["start"] + words["duration"], ends)


def test_words_without_a_time_are_left_out_and_unknown_ones_kept(miniature):
    root, alignments, cache = miniature
    words = words_of(load(root, cache).events())["word"]
    cases = [word["case"] for word in alignments[1]["words"]]
    assert cases.count("not-found-in-audio") == 5
    assert cases.count("not-found-in-transcript") == 1
    assert len(words) == len(cases) - 6
    assert "skiff" not in set(words)
    assert "eh" not in set(words)
    assert "stream" in set(words)
    assert "don't" in set(words)


def test_phonemes_follow_each_other_from_the_onset_of_their_word(small, cache):
    root, alignment = small
    events = load(root, cache).events()
    word, phonemes = broderick.heard(alignment)[1], events[events["kind"] == "phoneme"].iloc[3:6]
    assert list(phonemes["phoneme"]) == ["hh_B", "iy_I", "s_E"]
    steps = np.cumsum([0, *(phone["duration"] for phone in word["phones"])])
    np.testing.assert_allclose(phonemes["start"], word["start"] + steps[:3])
    np.testing.assert_allclose(phonemes["duration"], np.diff(steps))
    unknown = sum(word["alignedWord"] == "<unk>" for word in broderick.heard(alignment))
    assert (events["phoneme"] == "oov_S").sum() == unknown > 0


def test_every_word_and_phoneme_belongs_to_the_sentence_it_stands_in(small, cache):
    root, alignment = small
    events = load(root, cache).events()
    words = words_of(events)
    text = " ".join(alignment["transcript"].split())
    sentences = list(dict.fromkeys(words["sequence_uid"]))
    assert " ".join(sentences) == text
    assert sentences[0] == "You don't know the sea, Mr. Santiago of run 1."
    assert broderick.REPEATED in sentences
    assert sentences[-1] == "He said amen."
    for uid, group in words.groupby("sequence_uid", sort=False):
        assert all(word in uid for word in group["word"])
        assert list(group["word_index"]) == list(range(len(group)))
        assert set(group["word_sequence"]) == {" ".join(group["word"])}
    phonemes = events[events["kind"] == "phoneme"]
    of = np.searchsorted(words["start"], phonemes["start"] + 1e-9, side="right") - 1
    assert list(phonemes["sequence_uid"]) == list(words["sequence_uid"].iloc[of])


def test_blocks_are_sentences_known_by_their_text(small, cache):
    root, alignment = small
    events = load(root, cache).events()
    blocks = create_blocks(events)
    assert list(blocks["uid"]) == list(dict.fromkeys(words_of(events)["sequence_uid"]))
    assert len(blocks) == 19


def test_sentence_told_in_two_runs_is_one_to_the_split(miniature):
    root, _, cache = miniature
    blocks = [
        create_blocks(each.events()).set_index("uid")
        for each in list(from_selection(selection(root), cache))[:2]
    ]
    assert all(broderick.REPEATED in block.index for block in blocks)


def test_all_subjects_have_the_same_blocks(miniature):
    root, _, cache = miniature
    splits = {}
    for each in from_selection(selection(root), cache):
        blocks = assign_splits(merge_blocks(create_blocks(each.events())))
        run = each.recording_uid.split("_")[1]
        splits.setdefault(run, []).append(blocks[["start", "uid", "split"]].to_dict("list"))
    assert sorted(splits) == ["run1", "run10", "run2"]
    assert all(found[0] == other for found in splits.values() for other in found)


def test_sound_begins_with_the_signal_and_lasts_as_its_file(small, cache):
    root, alignment = small
    sound = load(root, cache).events().iloc[0]
    length = broderick.spoken(alignment) + 0.5
    assert (sound["kind"], sound["start"], sound["offset"]) == ("sound", 0.0, 0.0)
    assert sound["duration"] == pytest.approx(length, abs=1e-3)
    assert sound["filepath"] == str(root / "private" / "audio1.wav")


@pytest.mark.parametrize("places", ["none", "wrong", "no transcript"])
def test_sentences_come_from_the_text_where_gentle_gives_no_places(small, cache, places):
    root, alignment = small
    expected = load(root, cache).events()
    text = root / "private" / "oldman_run1.txt"
    text.write_bytes(text.read_text().replace("don't", "don’t").encode("cp1252"))
    for word in alignment["words"]:
        if places == "none":
            word.pop("startOffset", None), word.pop("endOffset", None)
        elif places == "wrong" and "startOffset" in word:
            word["startOffset"] += 1
    if places == "no transcript":
        del alignment["transcript"]
    rewrite(root, alignment)
    found = load(root, cache).events()
    for column in ("kind", "word", "sequence_id", "word_index", "word_sequence"):
        assert list(found[column].dropna()) == list(expected[column].dropna())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He came. She left.", ["He came.", "She left."]),
        ("Mr. Martin saw Dr. J. Perez. He left!", ["Mr. Martin saw Dr. J. Perez.", "He left!"]),
        ("“Can I?” the boy asked. “No.”", ["“Can I?” the boy asked.", "“No.”"]),
        (
            "“No,” I said. “It was I.” Then\nhe left.",
            ["“No,” I said.", "“It was I.”", "Then he left."],
        ),
        (
            "He waited... and left. It cost 1.5 cents. 3 came.",
            ["He waited... and left.", "It cost 1.5 cents.", "3 came."],
        ),
        (
            "A title\n\nHe said no. He left?! (Yes.) End",
            ["A title", "He said no.", "He left?!", "(Yes.)", "End"],
        ),
        ("\n  one", ["one"]),
    ],
)
def test_sentences_end_with_their_punctuation(text, sentences):
    begins = split_sentences(text)
    ends = [*begins[1:], len(text)]
    assert [" ".join(text[a:b].split()) for a, b in zip(begins, ends, strict=True)] == sentences


def test_words_that_the_least_edits_keep_are_matched():
    first, second = match_words("the old man and a sea".split(), "an old man in the sea".split())
    assert list(first) == [1, 2, 5]
    assert list(second) == [1, 2, 5]
    first, second = match_words(["a", "b"], ["c"])
    assert len(first) == len(second) == 0


def test_words_missing_from_the_text_go_with_the_one_before():
    numbers, texts = sentences_by_words(
        ["uh", "he", "came", "uh", "she", "left", "uh"], "He came. She left."
    )
    assert list(numbers) == [0, 0, 0, 0, 1, 1, 1]
    assert texts == ["He came.", "She left."]


def test_faithful_sentences_are_spacy_s(small, cache, spacy_model):
    root, _ = small
    broderick.write_run(root / "private", 1, "He came. Can’t I? the\nboy asked. He did.")
    words = words_of(load(root, cache).events())
    assert list(words["word"]) == "He came Can’t I the boy asked He did".split()
    sentences = ["He came.", "Can’t I? the boy asked.", "He did."]
    assert list(words["sequence_uid"]) == [sentences[number] for number in (0, 0, *[1] * 5, 2, 2)]
    # spaCy cuts "Can’t" in two, so it matches no token and goes with the word before.
    words = words_of(load(root, cache, faithful=True, spacy_model=spacy_model).events())
    sentences = ["He came.", "Can’t I?", "the\nboy asked.", "He did."]
    numbers = (0, 0, 0, 1, 2, 2, 2, 3, 3)
    assert list(words["sequence_uid"]) == [sentences[number] for number in numbers]
    assert list(words["sequence_id"]) == [str(number) for number in numbers]
    assert list(words["word_index"]) == [0, 1, 2, 0, 0, 1, 2, 0, 1]
    assert words["word_sequence"].iloc[2] == "He came Can’t"


def test_faithful_last_block_is_known_by_its_words(small, cache, spacy_model):
    root, _ = small
    faithful = load(root, cache, faithful=True, spacy_model=spacy_model)
    assert create_blocks(faithful.events())["uid"].iloc[-1] == "He said amen"
    assert create_blocks(load(root, cache).events())["uid"].iloc[-1] == "He said amen."


def test_faithful_leaves_out_words_around_the_text(small, cache, spacy_model, caplog):
    root, alignment = small
    text = root / "private" / "oldman_run1.txt"
    text.write_text(text.read_text().removeprefix("You ").replace(" amen.", " so."))
    words = words_of(load(root, cache, faithful=True, spacy_model=spacy_model).events())
    assert len(words) == len(broderick.heard(alignment)) - 3  # "You don't" and "amen"
    assert words["word"].iloc[0] == "know"
    assert words["word"].iloc[-1] == "said"
    assert "3 word(s) before the first or after the last one of the text: left out" in caplog.text
    assert "matching words at least 450 vs" in caplog.text
    assert len(words_of(load(root, cache).events())) == len(broderick.heard(alignment))


def test_faithful_without_spacy_or_its_model_says_what_to_install(
    small, cache, monkeypatch, tmp_path
):
    root, _ = small
    recording = load(root, cache, faithful=True, spacy_model=str(tmp_path / "nowhere"))
    recording.raw()  # needs none
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "spacy", None)
        with pytest.raises(ImportError, match=r"pip install bm\[text\]"):
            recording.events()


def test_unknown_model_of_spacy_is_named(small, cache, spacy_model):
    root, _ = small
    with pytest.raises(ImportError, match=r"no model 'en_none'.*python -m spacy download en_none"):
        load(root, cache, faithful=True, spacy_model="en_none").events()


def test_subjects_can_be_chosen_and_a_wrong_one_is_refused(miniature):
    root, _, cache = miniature
    assert load(root, cache, subjects=[10, "2"]).recording_uid == "2_run1"
    assert load(root, cache, subjects=10).recording_uid == "10_run1"
    with pytest.raises(ValueError, match=r"subject='3' does not exist.*Allowed: 1, 10, 2"):
        load(root, cache, subjects=[3])


def test_tree_below_a_folder_called_download_is_found(small, cache):
    root, _ = small
    (root / "study").mkdir()
    (root / "study" / "download").symlink_to(root)
    assert load(root / "study", cache).recording_uid == "1_run1"


def test_facts_are_those_of_the_dataset():
    facts = Broderick2019.facts
    assert (facts.licence, facts.subjects, facts.recordings) == ("CC0 1.0", 19, 380)
    assert facts.counts["sensors"] == 128
