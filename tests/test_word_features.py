"""Features of words: the right numbers at the right samples, and defaults that are counted."""

import sys

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from small_events import RATE, seen, tell

from bm.core.hashing import text_id
from bm.core.messages import DataError
from bm.features import EventFeature, make_features, registry
from bm.features.language import _NAMES, event_languages, language_code
from bm.features.words import (
    Modality,
    WordFrequency,
    WordHash,
    WordIndex,
    WordLength,
    WordPulse,
    WordSegment,
)

WORD_FEATURES = [Modality, WordFrequency, WordHash, WordIndex, WordLength, WordPulse, WordSegment]


def only(feature: EventFeature, events: pd.DataFrame) -> list[float]:
    """Values of a feature of one column."""
    values = feature.values(events)
    assert values.shape == (len(events), 1)
    assert np.isfinite(values).all()
    return values[:, 0].tolist()


# What they are


def test_word_features_go_by_their_published_names():
    assert {kind.__name__ for kind in WORD_FEATURES} <= set(registry)
    assert {kind.event_kind for kind in WORD_FEATURES} == {"word"}


def test_classes_are_counted_and_not_scaled():
    classes = {"WordSegment": 2, "WordHash": 100_000, "Modality": 3}
    for kind in WORD_FEATURES:
        feature = kind()
        assert feature.cardinality == classes.get(feature.name)
        continuous = feature.name in ("WordLength", "WordIndex", "WordFrequency")
        assert feature.normalizable == continuous
        assert feature.dimension == 1


def test_published_parameters_are_accepted(root):
    conf = OmegaConf.load(root / "conf" / "features_defaults" / "features_defaults.yaml")
    params = OmegaConf.to_container(conf.dset.features_params)
    names = [kind.__name__ for kind in WORD_FEATURES]
    features = {feature.name: feature for feature in make_features(names, params)}
    assert features["WordHash"].cardinality == 100_000


# Where they are


def test_pulse_is_one_sample_at_the_onset(cache):
    course = seen(WordPulse(), tell("the old sea"), cache)[:, 0]
    onsets = [round(start * RATE) for start in (1.0, 1.5, 2.0)]
    assert np.flatnonzero(course).tolist() == onsets
    assert course[onsets].tolist() == [1.0, 1.0, 1.0]


def test_pulse_stands_at_the_first_sample_at_or_after_the_onset(cache):
    events = tell("sea bird").assign(start=[1.0001, 2.0], duration=[0.4, 0.0])
    assert np.flatnonzero(seen(WordPulse(), events, cache)).tolist() == [121, 240]
    assert np.flatnonzero(seen(WordSegment(), events, cache)).tolist() == list(range(121, 169))


def test_pulse_beyond_the_end_of_the_recording_has_no_sample(cache):
    events = tell("sea bird").assign(start=[1.0, 4.9999])
    assert np.flatnonzero(seen(WordPulse(), events, cache)).tolist() == [120]


def test_segment_lasts_as_long_as_the_word(cache):
    course = seen(WordSegment(), tell("the sea"), cache)[:, 0]
    assert np.flatnonzero(course).tolist() == [*range(120, 168), *range(180, 228)]
    assert set(course) == {0.0, 1.0}


def test_position_of_no_word_is_not_that_of_the_first(cache):
    course = seen(WordIndex(), tell("the old sea", "a bird"), cache)[:, 0]
    assert course[[0, 120, 180, 240, 300, 360, 599]].tolist() == [-1, 0, 1, 2, 0, 1, -1]


# What they say


def test_length_is_of_letters_and_digits():
    words = ["sea", "don't", "well-known", "61", "Zoë", "disposed,"]
    events = tell("x").loc[[0] * len(words)].assign(word=words)
    assert only(WordLength(), events) == [3, 4, 9, 2, 3, 8]


def test_word_without_letters_is_one_long_and_counted(caplog):
    events = tell("a – b – c").assign(word=["a", "–", "b", "–", "..."])
    assert only(WordLength(), events) == [1, 1, 1, 1, 1]
    assert "WordLength: 3 words (2 different) without a letter count as 1 long" in caplog.text
    assert "'–' (2)" in caplog.text


@pytest.mark.parametrize("feature", [WordLength(), WordHash(), WordFrequency()])
@pytest.mark.parametrize("empty", ["", "  ", None, np.nan])
def test_empty_word_is_an_error(feature, empty):
    if feature.name == "WordFrequency":
        pytest.importorskip("wordfreq")
    events = tell("one two three")
    events["word"] = ["one", empty, "three"]
    with pytest.raises(DataError, match=rf"{feature.name}: 1 of 3 words are empty.*word 2"):
        feature.values(events)


def test_number_is_the_same_word_however_it_was_read():
    texts = tell("61 7")
    numbers = texts.assign(word=[61.0, 7.0])
    assert only(WordHash(), texts) == only(WordHash(), numbers)
    assert only(WordLength(), numbers) == [2, 1]
    assert only(WordHash(), texts.assign(word=[61, 7])) == only(WordHash(), texts)


@pytest.mark.parametrize("index", [[0, np.nan, 2], [0, -1, 2]])
def test_word_without_a_position_is_an_error(index):
    events = tell("the old sea").assign(word_index=index)
    with pytest.raises(DataError, match=r"WordIndex: 1 of 3 words have no word_index.*'old'"):
        WordIndex().values(events)
    with pytest.raises(DataError, match="WordIndex: 3 of 3 words"):
        WordIndex().values(events.drop(columns="word_index"))


def test_modality_tells_heard_from_read(cache):
    events = tell("the old sea", modality=["audio", "visual", "audio"])
    assert only(Modality(), events) == [1, 2, 1]
    assert seen(Modality(), events, cache)[0] == 0
    with pytest.raises(ValueError, match=r"modality of a word='visua'.*mean 'visual'"):
        Modality().values(events.assign(modality="visua"))
    with pytest.raises(ValueError, match="modality of a word"):
        Modality().values(events.drop(columns="modality"))


# Hash


def test_no_two_words_of_an_experiment_share_a_number():
    vocabulary = [f"word{number}" for number in range(700)]
    for buckets in (701, 1_000, 100_000):
        numbers = only(WordHash(buckets), tell(" ".join(vocabulary)))
        assert len(set(numbers)) == 700
        assert 1 <= min(numbers)
        assert max(numbers) < buckets


def test_numbers_depend_on_the_vocabulary_and_not_on_its_order():
    words = [f"word{number}" for number in range(300)]
    forth = dict(zip(words, only(WordHash(500), tell(" ".join(words))), strict=True))
    back = dict(zip(words[::-1], only(WordHash(500), tell(" ".join(words[::-1]))), strict=True))
    assert forth == back
    twice = only(WordHash(500), tell(" ".join(words * 2)))
    assert twice[:300] == twice[300:] == list(forth.values())


def test_word_keeps_its_own_bucket_unless_another_word_owns_it():
    words = [f"word{number}" for number in range(2_000)]
    numbers = dict(zip(words, only(WordHash(), tell(" ".join(words))), strict=True))
    moved = [word for word, number in numbers.items() if number != 1 + text_id(word) % 99_999]
    n_buckets = len({text_id(word) % 99_999 for word in words})
    assert len(moved) == 2_000 - n_buckets  # nobody is pushed out by one who had to move
    assert 5 < len(moved) < 40  # 20 are expected


def test_what_had_to_move_is_counted(caplog):
    caplog.set_level("INFO")
    words = [f"word{number}" for number in range(2_000)]
    only(WordHash(), tell(" ".join(words)))
    assert "of 2000 words share a bucket with another" in caplog.text


# Frequency


@pytest.fixture
def wordfreq():
    return pytest.importorskip("wordfreq", reason="wordfreq is not installed (bm[text])")


def test_frequency_is_on_the_zipf_scale(wordfreq):
    the, sailor = only(WordFrequency(), tell("the sailor"))
    assert 7.6 < the < 7.9  # 5 % of all words: log10(5e7)
    assert 3.5 < sailor < 4.5
    de, boot = only(WordFrequency(), tell("de boot", language="dutch"))
    assert de > 7.5
    assert boot == pytest.approx(wordfreq.zipf_frequency("boot", "nl"))
    assert only(WordFrequency(lang="nl"), tell("de boot")) == [de, boot]


def test_unlisted_word_is_rare_and_counted(wordfreq, caplog):
    frequencies = only(WordFrequency(), tell("the qqzzxv sea qqzzxv"))
    assert frequencies[1] == frequencies[3] == 1.0
    assert "WordFrequency: 2 words (1 different) not in the list count as 1.0" in caplog.text
    assert "'qqzzxv' (2)" in caplog.text


def test_list_of_another_language_is_noticed(wordfreq):
    with pytest.raises(DataError, match="none of the words is in the frequency list of ru"):
        WordFrequency("russian").values(tell("qqzzxv vvqqzz"))
    with pytest.raises(ValueError, match=r"WordFrequency: language='hr' does not exist.*nl"):
        WordFrequency("croatian").values(tell("the sea"))


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordfreq", None)  # as if it weren't installed
    with pytest.raises(ImportError, match=r"pip install bm\[text\]"):
        WordFrequency().values(tell("the sea"))


# Languages


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("en", ["en", "eng", "english", "English", "en-US", "en_GB", " EN "]),
        ("nl", ["nl", "nld", "dut", "dutch", "Dutch", "nl-BE", "Nederlands", "flemish"]),
        ("de", ["de", "ger", "deu", "german"]),
        ("zh", ["zh", "chinese", "mandarin", "cmn"]),
    ],
)
def test_language_goes_by_two_letters(code, names):
    assert {language_code(name) for name in names} == {code}


def test_unknown_language_is_named():
    with pytest.raises(ValueError, match=r"language='englisch' is not known.*mean 'english'"):
        language_code("englisch")
    with pytest.raises(ValueError, match="language='duch' is not known"):
        WordFrequency(lang="duch")


def test_events_tell_their_language_unless_one_is_given():
    events = tell("the sea", "de zee")
    events["language"] = ["english", "en", "nl", "dutch"]
    assert event_languages(events, "auto", "X").tolist() == ["en", "en", "nl", "nl"]
    assert event_languages(events, "english", "X").tolist() == ["en"] * 4
    events.loc[2, "language"] = np.nan
    with pytest.raises(DataError, match=r"X: 1 of 4 events have no language.*X\.lang=en"):
        event_languages(events, "auto", "X")
    with pytest.raises(DataError, match="X: 4 of 4 events have no language"):
        event_languages(events.drop(columns="language"), "auto", "X")


def test_languages_have_no_name_in_common():
    names = [name for code, others in _NAMES.items() for name in (code, *others.split())]
    assert len(names) == len(set(names))
