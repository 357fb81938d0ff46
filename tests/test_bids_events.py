"""From `*_events.tsv` to sounds, words and phonemes; every fault names file, line and column."""

import logging

import numpy as np
import pytest
import soundfile

from bm.core.messages import DataError
from bm.studies.bids_events import EventReader
from bm.studies.formats.tsv import read_tsv


@pytest.fixture
def read(tmp_path):
    """Read a table given as text with spaces for tabs; a.wav lasts 10 s and b.wav 4 s."""
    for name, seconds in (("a.wav", 10), ("b.wav", 4)):
        (tmp_path / "stimuli" / "audio").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "stimuli" / "audio" / name, np.zeros(800 * seconds), 800)

    def read_text(text, columns=None, encoding="utf-8"):
        path = tmp_path / "x_events.tsv"
        lines = [line.strip() for line in text.strip().splitlines()]
        path.write_bytes("\n".join("\t".join(line.split(" ")) for line in lines).encode(encoding))
        reader = EventReader(tmp_path, tmp_path / "stimuli" / "audio", columns or {})
        return reader.read(path)

    return read_text


def rows(events, kind, *columns):
    return [tuple(row) for row in events[events["kind"] == kind][list(columns)].to_numpy()]


def test_cells_decide_what_a_line_is(read):
    events = read(
        """
        onset duration stim_file word phoneme
        1.0 n/a a.wav n/a n/a
        1.5 0.3 n/a one n/a
        1.5 0.1 n/a one w
        12.0 n/a b.wav two n/a
        14.0 0.2 picture.jpg n/a n/a
        15.0 0.2 n/a n/a n/a
        """
    )
    assert rows(events, "sound", "start", "duration") == [(1.0, 10.0), (12.0, 4.0)]
    assert rows(events, "word", "start", "word") == [(1.5, "one"), (12.0, "two")]
    assert rows(events, "phoneme", "start", "phoneme") == [(1.5, "w")]


def test_trial_type_decides_before_the_cells_do(read):
    events = read(
        """
        onset duration trial_type sound word phoneme
        1.0 0 sound a.wav n/a n/a
        1.5 0.3 Word a.wav one n/a
        1.5 0.1 phoneme a.wav one w
        3.0 0.1 button n/a n/a n/a
        """
    )
    assert rows(events, "sound", "start") == [(1.0,)]
    assert rows(events, "word", "start", "word") == [(1.5, "one")]
    assert rows(events, "phoneme", "start", "phoneme") == [(1.5, "w")]


def test_columns_map_other_names(read):
    events = read(
        """
        time length audio token utterance trial_type
        1.0 0 a.wav n/a 7 word
        1.5 0.3 n/a one 7 odd
        """,
        columns={
            "onset": "time",
            "duration": "length",
            "sound": "audio",
            "word": "token",
            "sentence": "utterance",
            "kind": None,
        },
    )
    assert rows(events, "sound", "start", "duration") == [(1.0, 10.0)]
    assert rows(events, "word", "word", "duration") == [("one", 0.3)]


def test_further_columns_stay_in_the_table(read):
    events = read("onset duration word ear\n 1.0 0.2 one left\n 2.0 0.2 two n/a")
    assert list(events["ear"].fillna("none")) == ["left", "none"]


def test_sound_from_the_middle_of_a_file(read):
    events = read(
        """
        onset duration stim_file sound_offset
        1.0 n/a a.wav 4
        9.0 2.5 a.wav n/a
        """
    )
    assert rows(events, "sound", "offset", "duration") == [(4.0, 6.0), (0.0, 2.5)]


@pytest.mark.parametrize("cell", ["a.wav", "stimuli/audio/a.wav", "stimuli\\audio\\a.wav"])
def test_sound_files_are_found_below_the_stimuli_or_the_root(read, tmp_path, cell):
    events = read(f"onset duration stim_file\n 1.0 n/a {cell}")
    assert events["filepath"].item() == str(tmp_path / "stimuli" / "audio" / "a.wav")


def test_words_without_a_duration_last_until_the_next_but_at_most_half_a_second(read):
    events = read("onset duration word\n 1.0 n/a a\n 1.2 0 b\n 2.0 0.9 c\n 4.0 NaN d")
    assert rows(events, "word", "duration") == [(pytest.approx(0.2),), (0.5,), (0.9,), (0.5,)]


def test_words_need_no_column_of_durations(read):
    assert rows(read("onset word\n 1.0 a"), "word", "duration") == [(0.5,)]


def sentences(events):
    words = events[events["kind"] == "word"]
    columns = words[["sequence_id", "word_index", "word_sequence"]]
    return [tuple(row) for row in columns.to_numpy()]


def test_sentence_goes_on_while_its_cell_stays_the_same(read):
    events = read(
        """
        onset word sentence
        1 a x
        2 b x
        3 c y
        4 d x
        """
    )
    assert sentences(events) == [
        ("1", 0, "a b"), ("1", 1, "a b"), ("2", 0, "c"), ("3", 0, "d")
    ]  # fmt: skip


def test_line_that_only_names_a_sentence_begins_one(read, caplog):
    events = read(
        """
        onset word sentence trial_type
        1 n/a x sentence
        1 a n/a word
        2 b n/a word
        3 n/a y sentence
        3 c n/a word
        """
    )
    assert sentences(events) == [("1", 0, "a b"), ("1", 1, "a b"), ("2", 0, "c")]
    assert "have no sentence" not in caplog.text


def test_words_without_a_sentence_among_others_are_counted(read, caplog):
    events = read("onset word sentence\n 1 a x\n 2 b n/a\n 3 c n/a\n 4 d y")
    assert [sequence for _, _, sequence in sentences(events)] == ["a", "b c", "b c", "d"]
    assert "2 word(s) have no sentence (first: line 3)" in caplog.text


def test_word_index_counts_from_0_or_1_and_may_have_gaps(read):
    expected = [("1", 0, "a b"), ("1", 2, "a b"), ("2", 0, "c"), ("2", 1, "c d")]
    expected[2] = ("2", 0, "c d")
    for first in (0, 1):
        table = "onset word word_index\n" + "\n".join(
            f"{time} {word} {index + first}"
            for time, (word, index) in enumerate(zip("abcd", [0, 2, 0, 1], strict=True))
        )
        assert sentences(read(table)) == expected


def test_word_index_tells_a_repeated_sentence_apart(read):
    events = read("onset word sentence word_index\n 1 a x 0\n 2 b x 1\n 3 a x 0\n 4 b x 1")
    assert [number for number, _, _ in sentences(events)] == ["1", "1", "2", "2"]


def test_without_sentences_each_sound_is_one(read):
    events = read(
        """
        onset stim_file word
        1 b.wav n/a
        1 n/a a
        2 n/a b
        6 b.wav c
        """
    )
    assert sentences(events) == [("1", 0, "a b"), ("1", 1, "a b"), ("2", 0, "c")]


def test_all_words_are_one_sentence_where_nothing_tells_them_apart(read, caplog):
    assert sentences(read("onset word\n 1 a\n 9 b")) == [("1", 0, "a b"), ("1", 1, "a b")]
    assert "all words count as one sentence" in caplog.text


def test_unsorted_and_repeated_lines_are_put_right_and_logged(read, caplog):
    events = read("onset word\n 2 b\n 1 a\n 2 b")
    assert rows(events, "word", "start", "word") == [(1.0, "a"), (2.0, "b")]
    assert "1 repeated line(s) dropped (first: line 4)" in caplog.text
    assert "not in time order" in caplog.text


def test_what_is_left_out_is_counted(read, caplog):
    caplog.set_level(logging.INFO)
    read("onset word trial_type\n 1 a word\n 2 n/a button\n 3 n/a rest")
    assert "0 sounds, 1 words, 0 phonemes; 2 other line(s) left out" in caplog.text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("onset word\n 1 a\n x b", r"line 3, column 'onset': 'x' is not a number"),
        ("onset word\n 1 a\n n/a b", r"line 3, column 'onset': the cell is empty"),
        ("onset word\n inf a", r"line 2, column 'onset': 'inf' is not a number"),
        ("onset duration word\n 1 -2 a\n 2 -2 a", r"line 2, .*'-2' is not a .* \(2 such lines\)"),
        ("onset word\n 1 a b", r"line 2: 3 cells, but the header has 2: onset, word"),
        ("onset word word\n 1 a b", r"line 1: column\(s\) \['word'\] appear more than once"),
        ("start word\n 1 a", r"no column 'onset'; columns\.onset can name another one"),
        ("onset note\n 1 a", r"no sound, word or phoneme in 1 line\(s\).*the file has onset, note"),
        ("onset word word_index\n 1 a x", r"line 2, column 'word_index': 'x' is not a number"),
        ("onset word word_index\n 1 a n/a", r"line 2, column 'word_index': the cell is empty"),
        ("onset trial_type word\n 1 word n/a", r"line 2, column 'word': .* the cell holds nothing"),
        ("onset trial_type\n 1 word", r"line 2: a word is announced, but no column holds it"),
        ("onset stim_file\n 1 c.wav", r"line 2, column 'stim_file': There is no sound file .*c\.w"),
        ("onset stim_file\n 1 A.wav", r"Did you mean 'a\.wav'\? Allowed: a\.wav, b\.wav"),
        ("onset duration stim_file\n 1 5 b.wav", r"'duration': b\.wav lasts 4\.000 s, .*5\.000"),
        ("onset stim_file sound_offset\n 1 b.wav 4", r"b\.wav lasts 4\.000 s, but is played to"),
        ("onset stim_file\n 1 a.wav\n 5 a.wav", r"line 3, .*a\.wav is still playing.*\.kind"),
        ("onset trial_type stim_file\n 1 sound x.jpg", r"announces a sound, but .* holds x\.jpg"),
    ],
)  # fmt: skip
def test_fault_names_file_line_and_column(read, table, message):
    with pytest.raises(DataError, match=rf"x_events\.tsv.*{message}"):
        read(table)


def test_column_that_is_not_there_is_named_with_the_closest(read):
    with pytest.raises(
        DataError, match=r"no column 'token' \(columns\.word\)\. Did you mean 'tokens'"
    ):
        read("onset tokens\n 1 a", columns={"word": "token"})


def test_broken_sound_file_is_named_with_the_line(read, tmp_path):
    (tmp_path / "stimuli" / "audio").mkdir(parents=True, exist_ok=True)
    (tmp_path / "stimuli" / "audio" / "c.wav").write_text("<html>")
    with pytest.raises(DataError, match=r"line 2, column 'stim_file': Cannot read .*c\.wav.*page"):
        read("onset stim_file\n 1 c.wav")


def test_texts_that_look_like_missing_values_are_texts(read):
    events = read("onset word\n 1 None\n 2 null\n 3 NA\n 4 nan\n 5 n/a", encoding="utf-8-sig")
    assert list(events["word"]) == ["None", "null", "NA", "nan"]


def test_table_of_a_spreadsheet(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(
        b'\xef\xbb\xbfonset\tword\r\n1\t"he said ""no"""\r\n\r\n2\t"\r\n3\t\xc3\xa9\r\n'
    )
    table = read_tsv(path)
    assert list(table["word"]) == ['he said "no"', '"', "é"]
    assert list(table.index) == [2, 4, 5]


@pytest.mark.parametrize(("encoding", "guess"), [("latin-1", "Latin-1"), ("utf-16", "UTF-16")])
def test_other_encodings_are_refused_with_a_remedy(read, encoding, guess):
    with pytest.raises(DataError, match=rf"not UTF-8 \(perhaps {guess}\)\. Convert it: iconv"):
        read("onset word\n 1 été", encoding=encoding)


def test_empty_and_missing_tables_are_named(tmp_path):
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(DataError, match=r"empty\.tsv is empty"):
        read_tsv(tmp_path / "empty.tsv")
    with pytest.raises(DataError, match=r"absent\.tsv is missing"):
        read_tsv(tmp_path / "absent.tsv")
