"""Files of brennan2019 that are missing, broken, or not what they should be: each is named."""

import numpy as np
import pytest
import scipy.io
import soundfile
from fixtures import brennan

from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.segments.prepare import BlockRule, SignalSettings, prepare, prepare_one
from bm.studies import from_selection


@pytest.fixture
def small(tmp_path):
    """S01 alone, without signal in it: root, lines of the story, trials."""
    return tmp_path, *brennan.write_one(tmp_path)


def selection(root, **options):
    return {"study": "brennan2019", "path": root, **options}


def load(root, cache, **options):
    return next(from_selection(selection(root, **options), cache))


def test_times_that_fit_no_stretch_of_the_story_are_refused(small, cache):
    root, _, rows = small
    rows = rows[rows[:, 3] < 4]
    rows[:, :2] -= 5000 * rows[:, 3:4]
    brennan.write_trials(root / "proc" / "S01.mat", rows)
    with pytest.raises(DataError, match=r"proc/S01\.mat: the times between its 3 sounds fit no"):
        load(root, cache).events()


def test_trials_that_contradict_each_other_are_refused(small, cache):
    root, _, rows = small
    rows[100, :2] += 50
    brennan.write_trials(root / "proc" / "S01.mat", rows)
    with pytest.raises(DataError, match=r"proc/S01\.mat: trials of segment 2 .* differ by 0\.10"):
        load(root, cache).events()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("name", ["S01.mat", "proc/S01.mat"])
def test_truncated_matlab_file_is_named(small, cache, name, share):
    root, _, _ = small
    if name == "S01.mat":
        brennan.write_signal(root / name, 5000)
    content = (root / name).read_bytes()
    (root / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=rf"{name}.*(truncated|empty).*Download"):
        load(root, cache).events()


def test_page_of_a_failed_download_is_recognised(small, cache):
    root, _, _ = small
    (root / "S01.mat").write_text("<!DOCTYPE html><html>403</html>" * 100)
    with pytest.raises(DataError, match=r"S01\.mat.*page of a failed download"):
        load(root, cache).raw()


def test_other_versions_and_variables_are_named(small, cache):
    root, _, _ = small
    (root / "S01.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(4096))
    with pytest.raises(DataError, match=r"S01\.mat is of MATLAB's version 7\.3.*'-v7'"):
        load(root, cache).raw()
    scipy.io.savemat(root / "S01.mat", {"Raw": 1})
    with pytest.raises(DataError, match=r"S01\.mat: no variable 'raw'\. Did you mean 'Raw'"):
        load(root, cache).raw()
    scipy.io.savemat(root / "S01.mat", {"raw": 1})
    with pytest.raises(DataError, match=r"S01\.mat: 'raw' is no structure"):
        load(root, cache).raw()
    scipy.io.savemat(root / "S01.mat", {"raw": {"label": 1}})
    with pytest.raises(DataError, match=r"S01\.mat: no field raw\.trial"):
        load(root, cache).raw()


def test_wrong_channels_are_named(small, cache):
    root, _, _ = small
    brennan.write_signal(root / "S01.mat", 100, electrodes=brennan.ELECTRODES[:-2])
    with pytest.raises(DataError, match=r"S01\.mat: 58 electrodes instead of 60 .*60, 61"):
        load(root, cache).raw()
    raw = {"label": brennan.row_cell("abc"), "trial": np.zeros((4, 9)), "fsample": 500.0}
    scipy.io.savemat(root / "S01.mat", {"raw": raw})
    with pytest.raises(DataError, match=r"S01\.mat: 3 channel names, but 4 channels"):
        load(root, cache).raw()


def test_channel_names_in_a_character_matrix_are_read(small, cache):
    root, _, _ = small
    names = np.array([*brennan.ELECTRODES, "VEOG"])  # as wide as the widest
    raw = {"label": names, "trial": np.ones((61, 9)), "fsample": 500.0}
    scipy.io.savemat(root / "S01.mat", {"raw": raw})
    assert load(root, cache).raw().ch_names == [*brennan.ELECTRODES, "VEOG"]


def test_signals_that_were_resampled_or_cut_are_refused(small, cache):
    root, _, _ = small
    content = {"label": brennan.row_cell("abc"), "trial": np.zeros((3, 9)), "fsample": 250.0}
    scipy.io.savemat(root / "S01.mat", {"raw": content})
    with pytest.raises(DataError, match=r"S01\.mat: 250\.0 Hz.*not resampled"):
        load(root, cache).raw()
    content.update(fsample=500.0, sampleinfo=np.array([[501.0, 509.0]]))
    scipy.io.savemat(root / "S01.mat", {"raw": content})
    with pytest.raises(DataError, match=r"S01\.mat begins at sample 501.*not cut"):
        load(root, cache).raw()


def test_trials_without_a_column_are_named(small, cache):
    root, _, rows = small
    brennan.write_trials(root / "proc" / "S01.mat", rows, ["segment", "tmin", "order"])
    with pytest.raises(DataError, match=r"proc/S01\.mat: no column 'Order'. Did you mean 'order'"):
        load(root, cache).events()
    rows[7, 4] = np.nan
    brennan.write_trials(root / "proc" / "S01.mat", rows)
    with pytest.raises(DataError, match=r"proc/S01\.mat: proc\.trl, row 8: not a number"):
        load(root, cache).events()


def test_missing_sound_is_logged_and_training_refused(small, cache, caplog):
    root, lines, _ = small
    sound = root / "audio" / brennan.SOUND.format(2)
    sound.rename(sound.with_name(sound.name.lower()))
    events = load(root, cache).events()
    duration = events[events["kind"] == "sound"]["duration"].iloc[1]
    assert duration == pytest.approx(max(x["offset"] for x in lines if x["Segment"] == 2))
    assert "SoundFile2.wav is missing" in caplog.text
    assert "rename it to 'DownTheRabbitHoleFinal_SoundFile2.wav'" in caplog.text
    with pytest.raises(DataError, match=r"SoundFile2\.wav is missing"):
        prepare_one(load(root, cache), SignalSettings(), BlockRule())


def test_truncated_and_wrong_sounds_are_named(small, cache):
    root, _, _ = small
    sound = root / "audio" / brennan.SOUND.format(3)
    whole = sound.read_bytes()
    sound.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"SoundFile3\.wav is truncated"):
        load(root, cache).events()
    soundfile.write(sound, np.zeros(16_000), 16_000)
    with pytest.raises(DataError, match=r"SoundFile3\.wav lasts 1\.000 s, but by Alice.*words"):
        load(root, cache).events()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("Segment,", "segment,", r"no column 'Segment'. Did you mean 'segment'"),
        ("\n", "\nx,", r"line 2: 17 cells, but the header has 16"),
        ("\n", "\nAlice,1,0.1\n", r"line 2: 3 cells, but the header has 16.*truncated"),
    ],
)
def test_line_of_the_story_that_makes_no_sense_is_named(small, cache, old, new, complaint):
    root, _, _ = small
    story = root / brennan.STORY
    story.write_text(story.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=rf"{brennan.STORY}.*{complaint}"):
        load(root, cache).events()


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("onset", "soon", r"line 4, column 'onset': 'soon' is not a number from 0"),
        ("offset", 0.0, r"line 4, column 'offset': the word ends before it begins"),
        ("Order", 2, r"line 4, column 'Order': the number stands in two lines"),
        ("Word", "", r"line 4, column 'Word': the cell is empty"),
        ("Sentence", "", r"line 4, column 'Sentence': the cell is empty"),
    ],
)
def test_cell_of_the_story_that_makes_no_sense_is_named(small, cache, column, value, complaint):
    root, lines, _ = small
    lines[2][column] = value
    brennan.write_story(root / brennan.STORY, lines)
    with pytest.raises(DataError, match=rf"{brennan.STORY}, {complaint}"):
        load(root, cache).events()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_story_in_a_wrong_encoding_is_named(small, cache, encoding):
    root, _, _ = small
    story = root / brennan.STORY
    story.write_bytes(story.read_text().replace("rabbit", "räbbit").encode(encoding))
    with pytest.raises(DataError, match=rf"{brennan.STORY}: not UTF-8.*iconv"):
        load(root, cache).events()


def test_missing_story_and_tables_are_named_with_the_way_out(small, cache):
    root, _, _ = small
    (root / "proc").rename(root / "PROC")
    (root / "proc.zip").touch()
    with pytest.raises(DataError, match=r"proc/S01\.mat is missing.*Unpack .*proc\.zip"):
        load(root, cache)
    (root / brennan.STORY).rename(root / brennan.STORY.lower())
    with pytest.raises(
        DataError, match=rf"{brennan.STORY} is missing.*downloads\.md.*rename it to"
    ):
        load(root, cache)


def test_signal_with_a_name_in_lower_case_is_not_used_and_logged(small, cache, caplog):
    root, _, _ = small
    (root / "S01.mat").rename(root / "s01.mat")
    with pytest.raises(DataError, match=r"nobody has both a signal .* 0 signal\(s\), 1 table"):
        load(root, cache)
    assert "s01.mat is not used: upper and lower case matter" in caplog.text


def test_one_broken_recording_leaves_the_others_alone(tmp_path, caplog):
    brennan.write_study(tmp_path)
    (tmp_path / "S02.mat").write_bytes(b"MATLAB 5.0")
    recordings = from_selection(selection(tmp_path, subjects=["S01", "S02"]), Cache(tmp_path / "c"))
    prepared = prepare(recordings, SignalSettings(), BlockRule())
    assert [item.recording.subject_uid for item in prepared] == ["S01"]
    assert "1 recording(s) set aside, 1 used" in caplog.text
