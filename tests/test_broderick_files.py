"""Files of broderick2019 that are missing, broken, or not what they should be: each is named."""

import json

import numpy as np
import pytest
import scipy.io
import soundfile
from fixtures import broderick

from bm.core.messages import DataError
from bm.segments.prepare import BlockRule, SignalSettings, prepare, prepare_one
from bm.studies import from_selection

SIGNAL = broderick.FIRST_SIGNAL


@pytest.fixture
def small(tmp_path):
    """One recording without noise: root, and the alignment."""
    return tmp_path, broderick.write_one(tmp_path)


def selection(root, **options):
    return {"study": "broderick2019", "path": root, **options}


def load(root, cache, **options):
    return next(from_selection(selection(root, **options), cache))


def words_of(events):
    return events[events["kind"] == "word"]


def rewrite(root, alignment):
    (root / "private" / "align1.json").write_text(json.dumps(alignment))


def test_missing_folders_are_named_with_the_way_out(small, cache):
    root, _ = small
    (root / "private").rename(root / "Private")
    with pytest.raises(DataError, match=r"private is missing.*ds004408.*rename it to 'private'"):
        load(root, cache)
    (root / "Natural Speech").rename(root / "elsewhere")
    (root / "Natural Speech.zip").touch()
    with pytest.raises(
        DataError, match=r"EEG is missing.*Dryad.*downloads\.md.*Unpack .*Natural Speech\.zip"
    ):
        load(root, cache)
    (root / "Natural Speech" / "EEG").mkdir(parents=True)
    (root / "private").mkdir()
    with pytest.raises(DataError, match=r"no recording such as Subject1/Subject1_Run1\.mat"):
        load(root, cache)


def test_folder_with_a_name_in_lower_case_is_not_used_and_logged(small, cache, caplog):
    root, _ = small
    folder = root / "Natural Speech" / "EEG" / "Subject1"
    folder.rename(folder.with_name("subject1"))
    with pytest.raises(DataError, match="no recording such as"):
        load(root, cache)
    assert "subject1 is not used: upper and lower case matter" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_truncated_signal_is_named(small, cache, share):
    root, _ = small
    content = (root / SIGNAL).read_bytes()
    (root / SIGNAL).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"Subject1_Run1\.mat.*(truncated|empty|no variable)"):
        load(root, cache).raw()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"eegData": np.zeros((9, 127))}, r"eegData is of shape \(9, 127\), not \(time, 128\)"),
        ({"eegData": np.zeros((128, 9))}, r"eegData is of shape \(128, 9\), not \(time, 128\)"),
        ({"mastoids": np.zeros((8, 2))}, r"9 samples of eegData, but 8 of mastoids"),
        ({"fs": "fast"}, r"fs='fast' is no sample rate"),
        ({"fs": 0}, r"fs=0 is no sample rate"),
    ],
)
def test_wrong_shapes_and_rates_are_named(small, cache, content, complaint):
    root, _ = small
    whole = {"eegData": np.zeros((9, 128)), "mastoids": np.zeros((9, 2)), "fs": 128.0}
    scipy.io.savemat(root / SIGNAL, {**whole, **content})
    with pytest.raises(DataError, match=rf"Subject1_Run1\.mat: {complaint}"):
        load(root, cache).raw()


def test_missing_variable_is_named_and_mastoids_may_lack(small, cache):
    root, _ = small
    scipy.io.savemat(root / SIGNAL, {"eegdata": np.zeros((9, 128)), "fs": 128})
    with pytest.raises(DataError, match=r"no variable 'eegData'. Did you mean 'eegdata'"):
        load(root, cache).raw()
    scipy.io.savemat(root / SIGNAL, {"eegData": np.zeros((9, 128)), "fs": 128})
    assert len(load(root, cache).raw().ch_names) == 128


def test_missing_alignment_and_text_are_named(small, cache):
    root, alignment = small
    (root / "private" / "oldman_run1.txt").unlink()
    assert len(words_of(load(root, cache).events())) == len(
        broderick.heard(alignment)
    )  # places tell
    del alignment["transcript"]
    rewrite(root, alignment)
    with pytest.raises(DataError, match=r"oldman_run1\.txt is missing"):
        load(root, cache).events()
    (root / "private" / "align1.json").rename(root / "private" / "Align1.json")
    with pytest.raises(DataError, match=r"align1\.json is missing.*rename it to 'align1\.json'"):
        load(root, cache).events()


def test_text_of_another_run_is_refused(small, cache):
    root, alignment = small
    (root / "private" / "oldman_run1.txt").write_text("Nothing of the kind.")
    del alignment["transcript"]
    rewrite(root, alignment)
    with pytest.raises(DataError, match=r"oldman_run1\.txt is not the text of .*: only \d+ of 15"):
        load(root, cache).events()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"case": "lost"}, r"word 2: no 'case' of success, not-found"),
        ({"word": ""}, r"word 2: a word without text"),
        ({"start": "now"}, r"word 2: start='now' is no time"),
        ({"start": -1}, r"word 2: start=-1 is no time"),
        ({"end": float("nan")}, r"word 2: end=nan is no time"),
        ({"end": 0.1}, r"word 2 \(\"don't\"\): it ends at 0\.1 s, before it begins"),
        ({"phones": [{"phone": "t_B"}]}, r"word 2: duration=None is no time"),
        ({"phones": ["t_B"]}, r"word 2: 'phones' is no list of phonemes"),
    ],
)
def test_word_of_the_alignment_that_makes_no_sense_is_named(small, cache, change, complaint):
    root, alignment = small
    alignment["words"][1].update(change)
    rewrite(root, alignment)
    with pytest.raises(DataError, match=rf"align1\.json, {complaint}"):
        load(root, cache).events()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"transcript": "He', r"no JSON \(truncated"),
        (b"<html>403</html>", r"no JSON \(it is the page of a failed download"),
        (b'{"Words": []}', r"no list 'words'. Did you mean 'Words'"),
        (b"[]", r"holds list, not an object"),
        (b'{"words": []}', r"no word was found in the sound"),
        ('{"words": ["é"]}'.encode("latin-1"), r".*not UTF-8.*iconv"),
        ("{}".encode("utf-16"), r".*not UTF-8.*UTF-16"),
    ],
)
def test_file_that_is_no_alignment_is_named(small, cache, content, complaint):
    root, _ = small
    (root / "private" / "align1.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"align1\.json(: |, ){complaint}"):
        load(root, cache).events()


def test_missing_sound_is_logged_and_training_refused(small, cache, caplog):
    root, alignment = small
    (root / "private" / "audio1.wav").unlink()
    sound = load(root, cache).events().iloc[0]
    assert sound["duration"] == pytest.approx(broderick.spoken(alignment))
    assert "audio1.wav is missing" in caplog.text
    assert "has no features" in caplog.text
    with pytest.raises(DataError, match=r"audio1\.wav is missing"):
        prepare_one(load(root, cache), SignalSettings(), BlockRule())


def test_truncated_and_wrong_sounds_are_named(small, cache):
    root, _ = small
    sound = root / "private" / "audio1.wav"
    whole = sound.read_bytes()
    sound.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"audio1\.wav is truncated"):
        load(root, cache).events()
    soundfile.write(sound, np.zeros(16_000), 16_000)
    with pytest.raises(DataError, match=r"audio1\.wav lasts 1\.000 s, but by align1\.json"):
        load(root, cache).events()


def test_one_broken_recording_leaves_the_others_alone(small, tmp_path, caplog):
    root, _ = small
    broderick.write_run(root / "private", 2)
    (root / SIGNAL).with_name("Subject1_Run2.mat").write_bytes(b"MATLAB 5.0")
    recordings = from_selection(selection(root), tmp_path / "cache")
    prepared = prepare(recordings, SignalSettings(), BlockRule())
    assert [item.recording.recording_uid for item in prepared] == ["1_run1"]
    assert "1 recording(s) set aside, 1 used" in caplog.text
