"""Retrieval beyond top-10, and the report that shows it, opened in a browser."""

import json
from base64 import b64decode
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
import torch
from browser import browse
from small_language_models import save_spacy
from small_splits import make_dataset, noisy, perfect
from test_report import make_content, make_retrieval

from bm.evaluation import Retrieval, retrieve
from bm.evaluation.breakdown import accuracy_by_candidates, breakdown, intervals, measures
from bm.evaluation.report import write_report
from bm.evaluation.statistics import hits
from bm.features.text import MODELS, PartOfSpeech
from bm.segments import SegmentLoader

STORY = [(f"sentence {n // 6}", n % 6, f"word{n % 7}") for n in range(30)]


@pytest.fixture(scope="module")
def retrieval() -> Retrieval:
    dataset = make_dataset([STORY] * 5)
    return retrieve(dataset, SegmentLoader(dataset, 8).in_order(), noisy(3.0), perfect)


def test_accuracy_among_fewer_candidates_is_that_of_random_subsets(retrieval):
    table = accuracy_by_candidates(retrieval, 5, sizes=(10, 20, 500))
    assert table["n_candidates"].tolist() == [10, 20, 30]
    assert table["accuracy"].iloc[-1] == pytest.approx(retrieval.accuracy(5))
    assert table["chance"].tolist() == pytest.approx([0.5, 0.25, 1 / 6])
    rng = np.random.default_rng(0)
    ranks = retrieval.table["rank"].to_numpy(int)
    drawn = [[(rng.permutation(29)[:9] < rank).sum() < 5 for rank in ranks] for _ in range(200)]
    assert table["accuracy"].iloc[0] == pytest.approx(np.mean(drawn), abs=0.01)


def test_word_level_probability_is_the_sum_over_candidates_of_that_word(retrieval):
    dataset = make_dataset([STORY] * 5)
    everything = dataset.gather(torch.arange(len(dataset)))
    estimates, targets = noisy(3.0)(everything).values, everything.features[:30]
    flat = targets.flatten(1)
    probability = (estimates.flatten(1) @ flat.T / flat.norm(dim=1)).softmax(dim=1).numpy()
    words = np.arange(30) % 7
    summed = np.stack([probability[:, words == word].sum(axis=1) for word in range(7)], axis=1)
    truth = np.tile(words, 5)
    ranks = (summed > summed[np.arange(150), truth][:, None]).sum(axis=1)
    assert retrieval.table["word_rank"].tolist() == ranks.tolist()
    assert retrieval.n_words == 7
    assert retrieval.word_accuracy(3) == pytest.approx((ranks < 3).mean())


def test_means_weigh_words_sentences_and_subjects_alike(retrieval):
    found = {one.name: one for one in measures(retrieval, 5)}
    right = pd.Series(hits(retrieval.table["rank"], 5))
    for name, column in (("different words", "word"), ("sentences", "word_sequence")):
        expected = right.groupby(retrieval.table[column].to_numpy()).mean().mean()
        assert found[f"top-5, mean over {name}"].value == pytest.approx(expected)
    median = found["median rank (1 is best)"]
    assert median.value == retrieval.table["rank"].median() + 1
    assert median.chance == 15.5
    assert found["word-level top-5 of 7 words"].chance == pytest.approx(5 / 7)
    names = [over for over, low, high in intervals(retrieval, 5) if low <= right.mean() <= high]
    assert names == ["subjects", "sentences", "subjects and sentences"]


def test_groups_of_words_hold_all_segments_once(retrieval):
    words = ["a", "an", "the", "banana", "cathedral", "to", "it"]
    table = retrieval.table.assign(word=[words[n % 7] for n in np.tile(np.arange(30), 5)])
    found = breakdown(Retrieval(table, retrieval.candidates), 5)
    assert set(found["by"]) == {"letters", "place in the sentence"}
    for _, group in found.groupby("by"):
        assert group["n_segments"].sum() == 150
    letters = found[found["by"] == "letters"].set_index("group")
    assert letters.index.tolist() == ["1 to 2", "3 to 4", "5 to 7", "8 or more"]
    short = table["word"].str.len() < 3
    assert letters["accuracy"]["1 to 2"] == pytest.approx(hits(table["rank"], 5)[short].mean())
    assert (letters["low"] <= letters["accuracy"]).all()
    places = found[found["by"] == "place in the sentence"]["group"].tolist()
    assert places == ["0", "1 to 2", "3 to 5"]


def test_frequent_words_are_told_from_rare_ones(retrieval):
    pytest.importorskip("wordfreq")
    words = ["the", "cathedral"] * 75
    table = retrieval.table.assign(word=words, language="en", rank=[0.0, 20.0] * 75)
    found = breakdown(Retrieval(table, retrieval.candidates), 5)
    groups = found[found["by"] == "Zipf frequency"].set_index("group")
    assert groups["accuracy"].to_dict() == {"below 4": 0.0, "7 or more": 1.0}


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_parts_of_speech_are_told_apart(retrieval, tmp_path, monkeypatch, is_asked_for):
    pytest.importorskip("spacy")
    words = ["the", "sailor", "sings"] * 50
    table = retrieval.table.assign(word=words, language="en", rank=[0.0, 9.0, 9.0] * 50)
    table["word_sequence"], table["word_index"] = "the sailor sings", [0, 1, 2] * 50
    if is_asked_for:
        table["feature.PartOfSpeech"] = [6, 8, 0] * 50
    else:
        tags = {"the": "DET", "sailor": "NOUN"}
        monkeypatch.setitem(MODELS, "en", str(save_spacy(tmp_path / "tagger", "en", tags=tags)))
        monkeypatch.setattr(PartOfSpeech, "size", "web")
        (tmp_path / "tagger").rename(tmp_path / "tagger_web")
    found = breakdown(Retrieval(table, retrieval.candidates), 5)
    groups = found[found["by"] == "part of speech"].set_index("group")
    known = {"DET": 1.0, "NOUN": 0.0}
    assert groups["accuracy"].to_dict() == (known if is_asked_for else {**known, "X": 0.0})
    assert (groups["n_segments"] == 50).all()


def page_of(folder: Path) -> Path:
    controls = pd.DataFrame(
        {
            "control": ["real", "shuffled pairs"], "expected": ["as real", "chance"], "k": 10,
            "accuracy": [0.75, 0.24], "low": [0.7, np.nan], "high": [0.8, np.nan],
            "chance": 0.25, "verdict": ["above chance", "at chance"],
        }
    )  # fmt: skip
    lags = pd.DataFrame(
        {"lag": [-1.0, 0.0, 1.0], "k": 10, "accuracy": [0.2, 0.7, 0.3], "chance": 0.25}
    )
    pooled = pd.DataFrame(
        {
            "what": ["single trial", "segment, summed over subjects and repetitions"], "k": 10,
            "accuracy": [0.75, 0.9], "low": [0.7, np.nan], "high": [0.8, np.nan],
            "over": ["subjects", ""], "chance": 0.25, "n_asked": [120, 40],
            "n_trials": [1.0, 3.0], "n_candidates": 40,
        }
    )  # fmt: skip
    tables = {"controls": controls, "lags": lags, "pooled": pooled}
    return write_report(folder, make_content(make_retrieval(), **tables))


PROBE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
  visible: innerWidth, needed: document.documentElement.scrollWidth,
  loaded: performance.getEntriesByType("resource").map(entry => entry.name),
  figures: [...document.querySelectorAll("figure svg")].map(svg => svg.clientWidth),
  text: document.body.innerText}), "*"))</script></body>"""
PHONE = """<!doctype html><body style="margin:0"><iframe src="report.html" width="390" height="844"
  style="border:0"></iframe><pre></pre><script>addEventListener("message", event =>
  document.querySelector("pre").textContent = btoa(encodeURIComponent(event.data)))</script>"""


def test_report_opens_in_a_browser_of_a_phone(tmp_path):
    page = page_of(tmp_path)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE))
    phone = tmp_path / "phone.html"
    phone.write_text(PHONE)  # no window of a browser is as narrow as a phone, but a frame can be
    shown = browse(phone.as_uri(), tmp_path, "--window-size=500,900")
    told = shown.partition("<pre>")[2].partition("</pre>")[0]
    seen = json.loads(unquote(b64decode(told).decode()))
    assert seen["needed"] <= seen["visible"] == 390
    assert seen["loaded"] == []
    assert len(seen["figures"]) >= 5
    assert all(250 < width < 390 for width in seen["figures"])
    parts = ("Controls", "In depth", "shuffled pairs", "median rank", "at chance", "permutations")
    for text in (*parts, "Not single-trial accuracies", "summed over subjects"):
        assert text in seen["text"]


def test_report_without_controls_has_no_such_section(tmp_path):
    assert "<h2>Controls" in page_of(tmp_path).read_text(encoding="utf-8")
    plain = write_report(tmp_path / "plain", make_content())
    assert "<h2>Controls" not in plain.read_text(encoding="utf-8")
