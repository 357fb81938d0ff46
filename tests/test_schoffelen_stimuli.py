"""MOUS: texts, TextGrids and sounds, whole, broken or absent."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from fixtures.schoffelen import (
    TEXTGRID,
    WAV,
    Line,
    length_of,
    textgrid,
    words_of,
    write_listener,
    write_stimuli,
)

from bm.core.messages import DataError
from bm.segments.prepare import BlockRule, SignalSettings, prepare_one
from bm.studies import from_selection
from bm.studies.formats.textgrid import read_textgrid
from bm.studies.mous.codes import read_codes

NUMBERS = [1, 2]


@pytest.fixture
def root(tmp_path):
    """A listener who heard two sentences."""
    write_stimuli(tmp_path, NUMBERS)
    write_listener(tmp_path)
    return tmp_path


def load(root, cache, **options):
    return next(from_selection({"study": "schoffelen2019", "path": root, **options}, cache))


def test_codes_are_read_as_a_whole():
    lines = [
        Line("Picture", "blank", 0), Line("Picture", "1 blanke 300", 1),
        Line("Picture", "3FIXEREN 300", 2), Line("Picture", "FIX 3516", 3),
        Line("Picture", "1 1945 300", 4), Line("Picture", "ISI", 5), Line("Response", "1", 6),
        Line("Picture", "8PRECISIE. 420", 7), Line("Sound", "14 Start File 069.wav", 8),
    ]  # fmt: skip
    rows = read_codes(_table(lines))
    assert list(rows["what"]) == [
        "other", "word", "word", "fixation", "word", "other", "other", "word", "sound",
    ]  # fmt: skip
    texts = ["blanke", "FIXEREN", "1945", "PRECISIE."]
    assert list(rows["text"][rows["what"] == "word"]) == texts
    assert list(rows["trigger"]) == [0, 1, 3, 20, 1, 0, 0, 8, 14]
    assert int(rows["text"].iloc[-1]) == 69


def test_textgrid_is_read_though_its_header_is_malformed(tmp_path):
    path = tmp_path / "a.TextGrid"
    path.write_text(textgrid(words_of(1), length_of(1)), encoding="utf-8")
    tiers = read_textgrid(path)
    assert list(tiers) == ["ORT-MAU", "KAN-MAU", "MAU"]
    spoken = [(each.start, each.stop, each.text) for each in tiers["ORT-MAU"] if each.text]
    assert spoken == words_of(1)
    assert "<p:>" in {each.text for each in tiers["MAU"]}
    path.write_text(textgrid([(0.0, 0.5, 'zei "één"')], 0.6), encoding="utf-16")
    assert read_textgrid(path)["ORT-MAU"][0].text == 'zei "één"'


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("ooTextFile", "ooBinaryFile", "line 1: .* doesn't open a TextGrid in text format"),
        ("xmax = 0.500000\n", "xmax = 0.5h\n", r"line 17: xmax = 0\.5h is no time in seconds"),
        ("xmin = 0.000000\n", "xmin = 2.0\n", r"line 15: the interval ends at 0\.5, before 2\.0"),
        ("            text = ", "            mark = ", r"line 18: 'mark = .*' is no xmin, xmax"),
        ("intervals: size = 2", "intervals: size = 3", r"truncated: tier 'ORT-MAU' has 2 of the 3"),
        ("intervals: size", "points: size", r"no tier with intervals"),
    ],
)
def test_malformed_textgrid_is_refused_by_file_and_line(tmp_path, old, new, complaint):
    path = tmp_path / "a.TextGrid"
    text = textgrid([(0.0, 0.5, "Toen")], 0.6)
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=rf"a\.TextGrid.*{complaint}"):
        read_textgrid(path)


def test_truncated_textgrid_is_refused(tmp_path):
    path = tmp_path / "a.TextGrid"
    lines = textgrid([(0.0, 0.5, "Toen")], 0.6).split("\n")
    for n_lines in (15, 17, 20, len(lines) - 4):
        path.write_text("\n".join(lines[:n_lines]), encoding="utf-8")
        with pytest.raises(DataError, match=r"a\.TextGrid.*(truncated|the file ends)"):
            read_textgrid(path)
    path.write_text('File type = "ooTextFile', encoding="latin-1")
    path.write_bytes(path.read_bytes() + b'"\n\ntext = "\xe9"\n')
    with pytest.raises(DataError, match=r"a\.TextGrid: not UTF-8 text from line 3 on"):
        read_textgrid(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, r"stimuli\.txt is missing"),
        ("1 Eén\n".encode("latin-1"), r"stimuli\.txt: not UTF-8 text from line 1 on"),
        (b"1 Een zin\nnog een zin\n", r"stimuli\.txt, line 2: 'nog een zin' is no item"),
        (b"1 Een zin\n0 Nog een zin\n", r"stimuli\.txt, line 2: '0 Nog een zin' is no item"),
        (b"1 Een zin\n\n1 Nog een zin\n", r"line 3: number 1 has its number already"),
        (b"1 Een zin\n2 Een zin\n", r"line 2: item 1 has its first 45 characters already"),
    ],
)
def test_texts_that_make_no_sense_are_refused_by_file_and_line(root, cache, content, complaint):
    path = root / "stimuli" / "stimuli.txt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        load(root, cache).events()


def test_item_that_is_not_in_the_texts_is_known_by_its_words(root, cache):
    (root / "stimuli" / "stimuli.txt").write_text("7 Iets heel anders\n", encoding="utf-8")
    ready = prepare_one(load(root, cache), SignalSettings(), BlockRule())
    assert ready.blocks["uid"].iloc[0] == " ".join(word for _, _, word in words_of(1))
    with pytest.raises(DataError, match=r"no item that begins with 'het aardige vrouwtje"):
        load(root, cache, faithful=True).events()


def test_missing_sound_lasts_until_its_last_word_but_cannot_be_trained_on(root, cache, caplog):
    (root / WAV.format(1)).unlink()
    recording = load(root, cache)
    sounds = recording.events().query("kind == 'sound'")
    assert list(sounds["duration"]) == [pytest.approx(words_of(1)[-1][1]), length_of(2)]
    assert caplog.text.count("LPF001.wav is missing") == 1
    with pytest.raises(DataError, match=r"LPF001\.wav is missing"):
        prepare_one(recording, SignalSettings(), BlockRule())


def test_broken_sound_is_refused_by_name(root, cache):
    path = root / WAV.format(1)
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    with pytest.raises(DataError, match=r"LPF001\.wav is truncated: at least 1000 bytes"):
        load(root, cache).events()
    soundfile.write(path, np.zeros(44_100), 44_100)
    with pytest.raises(DataError, match=r"LPF001\.wav lasts 1\.000 s.*up to 3\.740 s"):
        load(root, cache).events()


def test_sounds_without_textgrid_have_no_words(root, cache, caplog):
    (root / TEXTGRID.format(1)).unlink()
    events = load(root, cache).events()
    assert list(events.query("kind == 'sound'")["sequence_id"]) == ["1", "2"]
    assert set(events.query("kind == 'word'")["sequence_id"]) == {"2"}
    assert "1 sound(s) have no words" in caplog.text
    shutil.rmtree(root / "derivatives")
    with pytest.raises(DataError, match=r"LPF001\.TextGrid is missing.*align .* with WebMAUS"):
        load(root, cache).events()


def test_names_in_another_case_are_found_or_logged(root, cache, caplog):
    for name in (WAV.format(1), TEXTGRID.format(1)):
        (root / name).rename((root / name).with_name(Path(name).name.upper()))
    assert len(load(root, cache).events().query("kind == 'sound'")) == 2
    (root / "sub-A2002").rename(root / "sub-a2002")
    with pytest.raises(DataError, match="no recording of MOUS"):
        load(root, cache)
    assert "sub-a2002 is not used: upper and lower case matter" in caplog.text


def test_stimuli_that_are_replaced_renew_the_events_alone(root, cache):
    recording = load(root, cache)
    recording.preprocessed()
    assert len(recording.events().query("sequence_id == '1' and kind == 'word'")) == 14
    path = root / TEXTGRID.format(1)
    path.write_text(textgrid([(0.1, 0.5, "Toen")], length_of(1)), encoding="utf-8")
    recording = load(root, cache)
    assert len(recording.events().query("sequence_id == '1' and kind == 'word'")) == 1
    recording.preprocessed()
    assert len(list((cache.folder / "signals").glob("schoffelen2019-*"))) == 1


def _table(lines):
    return pd.DataFrame([(line.kind, line.code) for line in lines], columns=["type", "code"])
