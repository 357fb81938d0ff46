import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bm.core.layout import NO_POSITION, SensorMap
from bm.evaluation import Retrieval
from bm.evaluation.examples import Heard, choose_examples, words_in_windows
from bm.evaluation.report import (
    ReportContent,
    clock,
    number,
    ordinal,
    percent,
    render,
    summarise,
    write_report,
)
from bm.evaluation.tables import accuracy_table, metadata_table, write_tables

V = 40
SUBJECTS = ["study/one", "study/<script>alert(1)</script>", "study/three & $x$"]
WORDS = [f"word{n}" for n in range(V)]


def make_retrieval(n_subjects=3, n_candidates=V):
    """Of each subject, 3 in 4 of the segments rank 0, 1, 2, ...; the others are last but one."""
    labels = pd.DataFrame(
        {
            "recording": 0,
            "subject": 0,
            "time": 10.0 + np.arange(n_candidates),
            "event": np.arange(n_candidates),
            "word": WORDS[:n_candidates],
            "word_index": np.arange(n_candidates) % 5,
            "word_sequence": [f"sentence {n // 5}" for n in range(n_candidates)],
        }
    )
    tables = []
    for subject in range(n_subjects):
        rank = np.where(
            np.arange(n_candidates) % 4 < 3, np.arange(n_candidates) // 4, n_candidates - 2
        )
        best = [[n, *range(min(4, n_candidates - 1))] for n in range(n_candidates)]
        table = labels.assign(
            subject=subject,
            recording=subject,
            row=np.arange(n_candidates) + subject * n_candidates,
            candidate=np.arange(n_candidates),
            rank=rank.astype(float),
            probability=0.5 / (1 + rank),
            best=best,
            best_probability=[[0.4, 0.2, 0.1, 0.05, 0.01][: len(places)] for places in best],
        )
        tables.append(table)
    return Retrieval(pd.concat(tables, ignore_index=True), labels)


def make_content(retrieval=None, **changes):
    retrieval = make_retrieval() if retrieval is None else retrieval
    content = {
        "title": "A title",
        "signature": "1a2b3c4d",
        "is_simulated": False,
        "configuration": [("optim.lr", 3e-4, "preset=demo"), ("dset.selections", ["<b>"], "me")],
        "history": [
            {"train": {"loss": 3.0}, "valid": {"loss": 3.5}, "test": {"segment_top10": 0.1}},
            {"train": {"loss": 2.0}, "valid": {"loss": 2.5}, "test": {"segment_top10": 0.2}},
            {"train": {"loss": 1.0}, "valid": {"loss": 2.9}},
        ],
        "retrieval": retrieval,
        "subjects": SUBJECTS,
        "heard": [Heard("before", word, "after") for word in retrieval.candidates["word"]],
        "window": 3.0,
        "sensor_maps": [
            SensorMap(
                "MEG",
                ["A1", "A2", "A3", "<A4>"],
                np.array([[0, 0], [1, 0.5], [0.3, 1], [NO_POSITION] * 2], np.float32),
                np.array([3.0, 1.0, 2.0, 0.0]),
            )
        ],
        "facts": [("Parameters", "9,565,054")],
    }
    return ReportContent(**{**content, **changes})


class Page(HTMLParser):
    """Counts elements, and notes what the page would load."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.loaded, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.loaded += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "br", "path", "use", "image", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "use", "image", "rect"):
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)


def text_of(page):
    return re.sub(r"\s+", " ", " ".join(Page(page).texts))


def test_report_says_accuracy_chance_candidates_and_ceiling():
    text = text_of(render(make_content(ceiling={1: 0.5, 5: 0.8, 10: 0.93})))
    assert "among the 10 best of 40 candidates in 75.0 % of cases" in text
    assert "Guessing gives 25.0 %; the best possible decoder reaches 93.0 %" in text
    assert "chance 25.0 % (10 of 40) · 95 % interval 75.0–75.0 %" in text
    assert "120 test segments, 3 subjects, V = 40 candidates" in text
    for expected in ("1a2b3c4d", "optim.lr", "0.0003", "preset=demo", "9,565,054"):
        assert expected in text


def test_report_needs_nothing_but_itself():
    page = render(make_content(is_simulated=True))
    assert "http" not in page
    assert "url(" not in page.replace("url(#", "")
    assert all(target.startswith(("#", "data:")) for target in Page(page).loaded)
    assert not {"script", "link", "img", "iframe"} & set(Page(page).elements)


def test_report_is_well_formed_and_has_a_figure_of_each_kind():
    page = Page(render(make_content()))
    assert page.open == []
    assert page.elements.count("svg") == 6
    titles = text_of(render(make_content()))
    for title in (
        "By subject",
        "Ranks",
        "Learning",
        "Accuracy during training",
        "Sensors attended",
    ):
        assert title in titles


def test_names_are_escaped_wherever_they_stand():
    page = render(make_content())
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "three &amp; $x$" in page
    assert "<b>" not in page.replace("<b>word", "").replace("<b>75.0 %</b>", "")
    assert "&lt;A4&gt;" not in page  # a sensor without a place isn't shown


@pytest.mark.parametrize("is_simulated", [True, False])
def test_simulated_data_are_called_simulated(is_simulated):
    assert (
        "Simulated data." in text_of(render(make_content(is_simulated=is_simulated)))
    ) is is_simulated


def test_warnings_are_shown():
    assert "replaced by noise" in text_of(render(make_content(warnings=["replaced by noise"])))


def test_same_content_gives_the_same_page():
    assert render(make_content()) == render(make_content())


@pytest.mark.parametrize("n_candidates", [1, 2, 8])
def test_few_candidates_still_give_a_report(n_candidates):
    content = make_content(make_retrieval(1, n_candidates), history=[], sensor_maps=[])
    text = text_of(render(content))
    if n_candidates == 1:
        assert "There is only 1 unique test segment" in text
    elif n_candidates == 8:
        assert "among the 5 best of 8 candidates" in text


def test_many_subjects_are_drawn_without_names():
    names = [f"{'ab'[n % 2]}/person{n}" for n in range(96)]
    page = render(make_content(make_retrieval(96), subjects=names))
    figure = page[page.index("<svg") : page.index("</svg>")]
    assert "person" not in figure
    assert "96 subjects, sorted" in figure


@pytest.mark.parametrize("studies", [["one"] * 3, ["one", "one", "two"]])
def test_figure_names_the_study_only_if_there_are_several(studies):
    names = [f"{study}/person{n}" for n, study in enumerate(studies)]
    page = render(make_content(subjects=names))
    figure = page[page.index("<svg") : page.index("</svg>")]
    assert ("one/person0" in figure) is (len(set(studies)) > 1)
    assert "person2" in figure


def test_word_accuracy_of_training_is_told_apart():
    history = [{"test": {"wer": 0.61, "wer_chance": 0.2}}, {"train": {}}]
    text = text_of(render(make_content(history=history)))
    assert "Word accuracy in training 61.0 % (chance 20.0 %)" in text


def test_report_is_written_into_a_new_folder(tmp_path):
    path = write_report(tmp_path / "a" / "b", make_content())
    assert path == tmp_path / "a" / "b" / "report.html"
    assert path.read_text(encoding="utf-8") == render(make_content())


def test_words_are_those_that_begin_in_the_window():
    events = pd.DataFrame(
        {
            "kind": ["word", "sound", "word", "word", "word", "word"],
            "start": [0.0, 0.0, 1.0, 1.4, 2.0, 4.0],
            "word": ["far", None, "the", "white", "rabbit", "late"],
        }
    )
    table = pd.DataFrame(
        {
            "recording": [1, 1],
            "time": [1.4, 1.0],
            "event": [3, -1],
            "word_sequence": ["the white rabbit", None],
        }
    )
    first, second = words_in_windows(table, [events[:0], events], -0.5, 2.5)
    assert first == Heard("the", "white", "rabbit", "the white rabbit")
    assert (str(second), second.word) == ("the white rabbit", "")


def test_sounds_without_words_have_none():
    sounds = pd.DataFrame({"kind": ["sound"], "start": [0.0]})
    table = pd.DataFrame({"recording": [0], "time": [1.0], "event": [-1]})
    assert [str(heard) for heard in words_in_windows(table, [sounds], -0.5, 2.5)] == ["(no words)"]


def test_examples_are_half_hits_half_misses_of_different_segments():
    retrieval = make_retrieval()
    heard = [Heard(word=word) for word in WORDS]
    examples = choose_examples(retrieval, heard, SUBJECTS)
    assert [example.rank < 10 for example in examples] == [True] * 4 + [False] * 4
    assert len({example.heard for example in examples}) == 8
    assert len({example.subject for example in examples}) > 1
    assert examples == choose_examples(retrieval, heard, SUBJECTS)
    assert all(any(guess.is_true for guess in example.guesses) for example in examples)


def test_truth_beyond_the_best_five_is_added_with_its_place():
    retrieval = make_retrieval(1)
    retrieval.table["best"] = [[(n + 1) % V] for n in range(V)]
    retrieval.table["best_probability"] = [[0.4]] * V
    example = choose_examples(retrieval, [Heard(word=word) for word in WORDS], SUBJECTS)[-1]
    assert [guess.is_true for guess in example.guesses] == [False, True]
    assert example.guesses[-1].place == example.place == V - 1


def test_accuracy_table_has_all_first_then_each_subject(tmp_path):
    retrieval = make_retrieval()
    table = accuracy_table(retrieval, SUBJECTS, {10: 0.9})
    write_tables(tmp_path, table, metadata_table(retrieval, SUBJECTS, ["r1", "r2", "r3"]))
    found = pd.read_csv(tmp_path / "acc.csv")
    assert found["subject"].tolist() == ["all"] * 3 + SUBJECTS * 3
    assert found["k"].tolist() == [1, 5, 10] + [1] * 3 + [5] * 3 + [10] * 3
    everyone = found[(found["subject"] == "all") & (found["k"] == 10)].iloc[0]
    assert everyone["accuracy"] == 0.75
    assert everyone["chance"] == 0.25
    assert everyone["n_candidates"] == 40
    assert everyone["n_samples"] == 120
    assert everyone["n_subjects"] == 3
    assert everyone["standard_error"] == 0.0
    assert everyone["ceiling"] == 0.9
    one = found[found["subject"] == SUBJECTS[1]].iloc[0]
    assert one["n_samples"] == 40
    assert np.isnan(one["standard_error"])


def test_metadata_table_agrees_with_the_accuracy(tmp_path):
    retrieval = make_retrieval()
    shuffled = Retrieval(retrieval.table.sample(frac=1, random_state=0), retrieval.candidates)
    metadata = metadata_table(shuffled, SUBJECTS, ["r1", "r2", "r3"])
    write_tables(tmp_path, accuracy_table(retrieval, SUBJECTS), metadata)
    found = pd.read_csv(tmp_path / "metadata.csv")
    assert list(found) == [
        "subject", "recording", "word", "word_index", "sentence", "time", "rank", "probability",
    ]  # fmt: skip
    assert (found["rank"] < 10).mean() == retrieval.accuracy(10)
    assert found["rank"].dtype == found["word_index"].dtype == np.int64
    assert found["word"][:3].tolist() == ["word0", "word1", "word2"]
    assert found["recording"].tolist() == ["r1"] * 40 + ["r2"] * 40 + ["r3"] * 40


def test_tied_ranks_keep_their_half():
    retrieval = make_retrieval()
    retrieval.table.loc[0, "rank"] = 0.5
    assert metadata_table(retrieval, SUBJECTS, ["r1", "r2", "r3"])["rank"][0] == 0.5


def test_summary_holds_each_k_with_its_chance():
    found = summarise(make_retrieval(), {1: 0.5})
    assert [(item.k, item.chance, item.ceiling) for item in found] == [
        (1, 1 / 40, 0.5), (5, 1 / 8, None), (10, 1 / 4, None),
    ]  # fmt: skip


def test_numbers_are_written_for_people():
    assert [percent(share) for share in (0.713, 1.0, 0.0, 0.007, 1e-6)] == [
        "71.3 %", "100.0 %", "0.0 %", "0.70 %", "< 0.01 %",
    ]  # fmt: skip
    assert [ordinal(place) for place in (1, 2, 3, 4, 11, 12, 21, 113, 1002)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "21st", "113th", "1,002nd",
    ]  # fmt: skip
    assert [number(value) for value in (True, None, 3e-4, 1200, 12000, [1, 2], [], "x")] == [
        "true", "none", "0.0003", "1200", "12,000", "1, 2", "(empty)", "x",
    ]  # fmt: skip
    assert [clock(seconds) for seconds in (0, 59.96, 725.3)] == ["0:00.0", "1:00.0", "12:05.3"]
