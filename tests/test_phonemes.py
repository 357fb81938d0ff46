"""Phonemes: one inventory for the alphabets of English and Dutch studies, unknown ones counted."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from small_events import RATE, say, seen

from bm.core.messages import DataError
from bm.features import build_table, registry
from bm.features.phonemes import (
    _TABLE,
    INVENTORY,
    UNKNOWN,
    Phoneme,
    PhonemePulse,
    phoneme_class,
)

ARPABET = (
    "aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w "
    "y z zh"
).split()
DUTCH_SAMPA = (  # WebMAUS
    "p b t d k g f v s z S Z x G h m n N l r w j tS dZ I E A O Y @ i y u a: e: 2: o: Ei 9y Au E: "
    "9: O: A~ E~ O~"
).split()


def classes(labels: list[str], language: str = "en") -> list[int]:
    return [phoneme_class(label, language) for label in labels]


def test_both_go_by_their_published_names():
    assert {"Phoneme", "PhonemePulse"} <= set(registry)
    assert Phoneme.event_kind == PhonemePulse.event_kind == "phoneme"
    assert not Phoneme.normalizable
    assert not PhonemePulse.normalizable


def test_every_sound_is_a_class_of_its_own():
    assert len(set(INVENTORY)) == len(INVENTORY)
    assert classes(list(INVENTORY), "en")[:4] == [1, 2, 3, 4]
    assert sorted(classes(list(INVENTORY), "fr")) == list(range(1, len(INVENTORY) + 1))
    assert len(INVENTORY) + 1 == UNKNOWN
    assert Phoneme().cardinality == UNKNOWN + 1


def test_no_name_stands_for_two_sounds():
    rows = [line.split() for line in _TABLE.strip().splitlines()]
    for column in (1, 2):
        names = [name for row in rows for name in row[column].split(",") if name != "."]
        assert len(names) == len(set(names))


def test_arpabet_has_39_classes():
    assert len(set(classes(ARPABET))) == 39
    assert UNKNOWN not in classes(ARPABET)
    assert classes([label.upper() for label in ARPABET]) == classes(ARPABET)


@pytest.mark.parametrize("suffix", ["0", "1", "2", "_B", "_I", "_E", "_S", "1_B", "0_E"])
def test_stress_and_position_make_no_difference(suffix):
    assert classes([label + suffix for label in ARPABET]) == classes(ARPABET)
    assert classes([label.upper() + suffix for label in ARPABET]) == classes(ARPABET)


def test_dutch_sampa_has_a_class_for_each_label():
    found = classes(DUTCH_SAMPA, "nl")
    assert len(set(found)) == len(DUTCH_SAMPA) == 46
    assert UNKNOWN not in found


def test_languages_and_alphabets_share_their_sounds():
    same = [
        ("sh", "en", "S", "nl"), ("ng", "en", "N", "nl"), ("y", "en", "j", "nl"),
        ("zh", "en", "ʒ", "nl"), ("er", "en", "ɚ", "en"), ("ow", "en", "oʊ", "en"),
        ("a:", "nl", "aː", "nl"), ("9y", "nl", "œy", "nl"), ("Ei", "nl", "ˈɛɪ", "nl"),
        ("hh", "en", "h", "nl"), ("iy", "en", "ˈiː", "en"), ("ax", "en", "@", "nl"),
    ]  # fmt: skip
    for label, language, other, its_language in same:
        assert phoneme_class(label, language) == phoneme_class(other, its_language) < UNKNOWN
    assert phoneme_class("y", "en") != phoneme_class("y", "nl")  # yes, and Dutch u


def test_labels_of_real_studies_are_known(shared_data):
    labels: Counter[str] = Counter()
    for path in sorted((shared_data / "meg_masc").rglob("*_events.tsv")):
        labels.update(re.findall(r"'phoneme': '([^']*)'", path.read_text(encoding="utf-8")))
    assert labels.total() > 10_000
    assert len(labels) > 100
    assert UNKNOWN not in classes(list(labels))


@pytest.mark.parametrize(("study", "language"), [("English", "en"), ("Dutch", "nl")])
def test_labels_of_the_synthetic_voice_are_known(root, study, language):
    labels = json.loads((root / "tests" / "golden" / "espeak_phonemes.json").read_text())[study]
    assert len(labels) > 40
    assert [label for label in labels if phoneme_class(label, language) == UNKNOWN] == []


def test_phoneme_is_seen_while_it_lasts(cache):
    events = say(["dh_B", "ah_E", "sil", "s_B"])
    course = seen(Phoneme(), events, cache)[:, 0]
    the = classes(["dh", "ah", "s"])
    assert course[[119, 120, 129]].tolist() == [0, the[0], the[0]]
    assert course[[130, 132, 141, 144, 150, 156, 165]].tolist() == [
        0,
        the[1],
        the[1],
        0,
        0,
        *[the[2]] * 2,
    ]


def test_pulse_stands_at_the_onset_of_each_phoneme_and_no_pause(cache):
    pulses = seen(PhonemePulse(), say(["dh_B", "ah_E", "<p:>", "oov_S", "SIL"]), cache)[:, 0]
    assert np.flatnonzero(pulses).tolist() == [120, 132, 156]
    assert set(pulses) == {0.0, 1.0}


def test_unknown_labels_are_one_class_and_counted(caplog):
    values = Phoneme().values(say(["ah", "oov_S", "t", "oov_S", "%%"]))[:, 0]
    assert values[[1, 3, 4]].tolist() == [UNKNOWN] * 3
    assert "Phoneme: 3 of 5 labels are not in the inventory" in caplog.text
    assert "'oov_S' (2), '%%' (1)" in caplog.text


def test_alphabet_of_another_language_is_noticed():
    with pytest.raises(DataError, match=r"none of the 2 labels is known: '9y' \(2\).*\(en\) right"):
        Phoneme().values(say(["9y", "9y"], "english"))
    assert Phoneme(lang="dutch").values(say(["9y"], "english")).item() < UNKNOWN


def test_language_is_needed():
    events = say(["ah", "t"]).drop(columns="language")
    with pytest.raises(
        DataError, match=r"Phoneme: 2 of 2 events have no language.*Phoneme\.lang=en"
    ):
        Phoneme().values(events)
    assert Phoneme("en").values(events)[:, 0].tolist() == classes(["ah", "t"])


def test_recordings_share_the_rows_of_a_phoneme(cache):
    events = [say(["ah", "t"]), say(["t", "oov", "ah"])]
    table = build_table(Phoneme(), events, [600, 600], RATE, cache)
    assert len(table.rows) == 1 + 3  # none, and three classes
