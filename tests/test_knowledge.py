"""What the decoder knows: planted relations are found, and others aren't."""

import sys

import numpy as np
import pandas as pd
import pytest

from bm.core.messages import DataError
from bm.evaluation import Retrieval
from bm.evaluation.knowledge import (
    TOGETHER,
    anchors,
    knowledge,
    mean_in_window,
    phonemes_of_words,
    predict_held_out,
    summarise_knowledge,
)
from bm.features.phonemes import phoneme_class

V, N_SUBJECTS = 120, 6
SENTENCES = [f"sentence {n // 6}" for n in range(V)]
SUBJECTS = [f"study/s{n}" for n in range(N_SUBJECTS)]


@pytest.fixture(scope="module")
def features() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    names = generator.normal(size=(V // 6, 30)).repeat(6, axis=0)
    return {
        "planted": generator.normal(size=(V, 4)),
        "unrelated": generator.normal(size=(V, 4)),
        "name of the sentence": names,
    }


@pytest.fixture(scope="module")
def retrieval(features) -> Retrieval:
    """Six listeners; the first feature, and the sentence, make segments easy."""
    tables = []
    for subject in range(N_SUBJECTS):
        generator = np.random.default_rng(1 + subject)
        of_sentence = np.random.default_rng(9).normal(size=V // 6).repeat(6)
        logit = features["planted"].sum(axis=1) + of_sentence + generator.normal(size=V)
        tables.append(
            pd.DataFrame(
                {
                    "subject": subject,
                    "candidate": np.arange(V),
                    "probability": 1 / (1 + np.exp(-logit)),
                    "word_sequence": SENTENCES,
                }
            )
        )
    table = pd.concat(tables, ignore_index=True).sample(frac=1, random_state=0)
    candidates = pd.DataFrame({"word_sequence": SENTENCES})
    return Retrieval(table.reset_index(drop=True), candidates)


@pytest.fixture(scope="module")
def found(retrieval, features) -> pd.DataFrame:
    return knowledge(retrieval, features, SUBJECTS, n_folds=3)


def test_planted_feature_is_found_and_others_are_not(found, features):
    assert list(found["feature"].unique()) == [*features, TOGETHER]
    assert set(found["subject"]) == set(SUBJECTS)
    assert (found["n_segments"] == V).all()
    means = found.groupby("feature")["r"].mean()
    assert means["planted"] > 0.7
    assert means[TOGETHER] > 0.6
    assert abs(means["unrelated"]) < 0.15
    assert (
        abs(means["name of the sentence"]) < 0.2
    )  # it tells all only of sentences that it has seen


def test_summary_tests_subjects_and_corrects_for_the_number_of_features(found):
    summary = summarise_knowledge(found).set_index("feature")
    planted = summary.loc["planted"]
    assert planted["r"] == pytest.approx(found[found["feature"] == "planted"]["r"].mean())
    assert planted["low"] < planted["r"] < planted["high"]
    assert planted["p"] == planted["p_floor"] == 2 ** (1 - N_SUBJECTS)
    assert planted["p_holm"] == pytest.approx(4 * planted["p"])
    assert planted["n_subjects"] == N_SUBJECTS


def test_one_feature_is_not_taken_together(retrieval, features):
    alone = knowledge(retrieval, {"planted": features["planted"]}, SUBJECTS, n_folds=3)
    assert set(alone["feature"]) == {"planted"}


def test_what_never_changes_predicts_nothing():
    groups = np.arange(40) // 4
    target = np.random.default_rng(0).normal(size=40)
    assert predict_held_out(np.ones((40, 2)), target, groups) == 0.0
    assert predict_held_out(target[:, None], np.ones(40), groups) == 0.0


def test_too_few_or_unknown_sentences_are_refused(retrieval, features):
    with pytest.raises(DataError, match=r"2 sentence\(s\) are too few"):
        predict_held_out(np.ones((9, 1)), np.arange(9.0), np.arange(9) // 5)
    table = retrieval.table.assign(word_sequence=None)
    with pytest.raises(DataError, match="Not all segments have a sentence"):
        knowledge(Retrieval(table, retrieval.candidates), features, SUBJECTS)


def test_without_scikit_learn_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=r"pip install bm\[analysis\]"):
        predict_held_out(np.ones((9, 1)), np.arange(9.0), np.arange(9))


# Features of words


@pytest.fixture
def events() -> list[pd.DataFrame]:
    """A recording in which "a bat" is heard, and another in which "a" is, later."""
    first = pd.DataFrame(
        [
            ("word", 1.0, 0.2, "a", None), ("word", 1.2, 0.4, "bat", None),
            ("phoneme", 1.0, 0.2, None, "ə"), ("phoneme", 1.2, 0.1, None, "b"),
            ("phoneme", 1.3, 0.2, None, "æ"), ("phoneme", 1.5, 0.1, None, "b"),
        ],
        columns=["kind", "start", "duration", "word", "phoneme"],
        index=[5, 6, 7, 8, 9, 10],
    ).assign(language="en")  # fmt: skip
    second = first.iloc[[0]].assign(start=3.0)
    return [first, second]


def test_words_of_candidates_and_their_phonemes(events):
    candidates = pd.DataFrame({"recording": [0, 0], "event": [6, 5], "time": [1.2, 1.0]})
    words = anchors(candidates, events)
    assert words["word"].tolist() == ["bat", "a"]
    counts = phonemes_of_words(candidates, words, events)
    assert counts.sum(axis=1).tolist() == [3, 1]
    assert counts[0, phoneme_class("b", "en")] == 2
    assert counts[0, phoneme_class("ə", "en")] == 0
    elsewhere = pd.DataFrame({"recording": [1], "event": [5], "time": [3.0]})
    assert phonemes_of_words(elsewhere, anchors(elsewhere, events), events) is None
    with pytest.raises(DataError, match="anchored at words"):
        anchors(pd.DataFrame({"recording": [0], "event": [8]}), events)


def test_phrase_is_the_mean_of_the_words_in_the_window(events):
    candidates = pd.DataFrame({"recording": [0, 0, 1], "event": [5, 6, 5], "time": [1.0, 1.2, 3.0]})
    vectors = {"a": np.array([1.0, 0.0]), "bat": np.array([0.0, 2.0])}
    found = mean_in_window(candidates, events, vectors, -0.1, 0.5)
    assert found.tolist() == [[0.5, 1.0], [0.0, 2.0], [1.0, 0.0]]
