"""The simulated study: exact times, reproducible signals, a planted response of known size."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
import soundfile

from bm.core.cache import Cache
from bm.core.hashing import file_checksum
from bm.events import assign_splits, create_blocks, merge_blocks
from bm.segments.windows import WindowRule, find_windows
from bm.studies import from_selection
from bm.studies.simulated.simulation import SAMPLE_RATE
from bm.studies.simulated.speech import Speech, package_version, read_story, tell_story
from bm.studies.synthetic import SyntheticRecording

Make = Callable[..., list[SyntheticRecording]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulated")


@pytest.fixture(scope="module")
def make(folder: Path) -> Make:
    """Recordings of a simulated study; they share one cache."""

    def build(study: str = "fake", **options: object) -> list[SyntheticRecording]:
        recordings: Iterator = from_selection({"study": study, **options}, Cache(folder))
        return list(recordings)

    return build


@pytest.fixture(scope="module")
def story(folder: Path) -> Speech:
    """The story of the study with its default parameters."""
    return tell_story(Cache(folder), 22.0)


def test_sentences_are_unique_and_last_three_to_twelve_seconds(story: Speech) -> None:
    sentences = read_story()
    words = story.table[story.table["kind"] == "word"]
    lengths = words.groupby("sequence_id").agg(start=("start", "min"), last=("start", "max"))
    assert len(set(sentences)) == len(sentences)
    assert (lengths["last"] - lengths["start"]).between(2.5, 12).all()


def test_story_lasts_as_long_as_asked_for(story: Speech) -> None:
    assert 22.0 <= sum(story.durations) / 60 < 22.2
    for path, duration in zip(story.sounds, story.durations, strict=True):
        assert soundfile.info(path).frames / 16000 == duration
        assert 180 < duration < 300


def test_words_follow_each_other_in_their_sentences(story: Speech) -> None:
    words = story.table[story.table["kind"] == "word"]
    assert (words["duration"] > 0).all()
    for (_, sentence), group in words.groupby(["sound", "word_sequence"], sort=False):
        tokens = [token.strip(",.;:!?") for token in sentence.split()]
        assert group["word"].tolist() == tokens
        assert group["word_index"].tolist() == list(range(len(tokens)))
        assert (np.diff(group["start"]) > 0).all()
        assert (
            (group["start"] + group["duration"])
            .iloc[:-1]
            .le(group["start"].iloc[1:].values + 1e-9)
            .all()
        )


def test_sound_begins_where_the_table_says_a_word_begins(story: Speech) -> None:
    """Words after a silence: the level is low before the onset and high soon after it."""
    for sound, path in enumerate(story.sounds[:2]):
        audio, rate = soundfile.read(path)
        table = story.table[(story.table["sound"] == sound) & (story.table["kind"] == "word")]
        ends = (table["start"] + table["duration"]).to_numpy()
        starts = table["start"].to_numpy()
        after_silence = starts[1:][starts[1:] - ends[:-1] > 0.15]
        assert len(after_silence) > 50
        for onset in after_silence:
            before = audio[int((onset - 0.1) * rate) : int((onset - 0.005) * rate)]
            after = audio[int(onset * rate) : int((onset + 0.15) * rate)]
            assert np.abs(before).max() < 0.01
            assert np.abs(after).max() > 0.02


def test_phonemes_lie_inside_the_words_they_make_up(story: Speech) -> None:
    table = story.table[story.table["sound"] == 0]
    words, phonemes = table[table["kind"] == "word"], table[table["kind"] == "phoneme"]
    assert len(phonemes) > 2.5 * len(words)
    word = np.searchsorted(words["start"].to_numpy() - 1e-9, phonemes["start"].to_numpy()) - 1
    assert set(word) == set(range(len(words)))  # each word has a phoneme


def test_default_study_has_at_least_150_unique_test_segments(make: Make) -> None:
    first, second = make("synthetic", n_subjects=2)[1:3]
    segments = [_test_words(recording) for recording in (first, second)]
    names = [list(zip(part["word_sequence"], part["word_index"], strict=True)) for part in segments]
    assert 300 <= len(set(names[0])) == len(names[0]) <= 1000
    assert names[0] == names[1]  # whatever the silence before the story
    assert first.lead_in != second.lead_in


def test_default_study_has_meg_of_six_listeners_in_two_sessions(make: Make) -> None:
    recordings = make("synthetic")
    assert len(recordings) == 12
    assert len({recording.subject_uid for recording in recordings}) == 6
    assert {recording.session for recording in recordings} == {"1", "2"}


def test_events_have_what_blocks_and_features_need(make: Make) -> None:
    events = make()[0].events()
    words = events[events["kind"] == "word"]
    assert set(words["condition"]) == {"sentence"}
    assert (words["word_index"] == 0).sum() == words["sequence_id"].nunique()
    sounds = events[events["kind"] == "sound"]
    assert all(Path(path).exists() for path in sounds["filepath"])
    assert sounds["condition"].isna().all()
    assert (sounds["offset"] == 0).all()


def test_recording_is_a_fif_file_that_calls_itself_simulated(make: Make) -> None:
    raw = make()[0].raw()
    assert isinstance(raw, mne.io.Raw)
    assert not raw.preload
    assert "simulated" in raw.info["description"]
    assert raw.info["sfreq"] == SAMPLE_RATE >= 120


@pytest.mark.parametrize(
    ("modality", "n_sensors", "low", "high"), [("meg", 102, 1e-13, 1e-12), ("eeg", 64, 1e-6, 1e-4)]
)
def test_all_sensors_have_places_and_plausible_amplitudes(
    make: Make, modality: str, n_sensors: int, low: float, high: float
) -> None:
    recording = make(
        modality=modality, n_sensors=None, n_subjects=1, n_minutes=1.0, artefacts=False
    )[0]
    signal = recording.preprocessed(120.0)
    assert signal.sensors.positions.shape == (n_sensors, 2)
    assert signal.sensors.positions.min() == 0
    assert len(np.unique(signal.sensors.positions, axis=0)) == n_sensors
    assert np.all((signal.data.std(axis=0) > low) & (signal.data.std(axis=0) < high))


def test_two_processes_make_identical_files(
    tmp_path: Path, make: Make, folder: Path, python_env: dict[str, str]
) -> None:
    program = (
        "import sys; from bm.studies import from_selection\n"
        "for r in from_selection({'study': 'fake', 'n_minutes': 1.0}, sys.argv[1]): r.raw()"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True, env=python_env)
    for recording in make(n_minutes=1.0):
        recording.raw()
    theirs = {path.relative_to(tmp_path): path for path in tmp_path.glob("*/*/*.[wfp]*")}
    assert len(theirs) == 5  # two sounds and their table, two listeners
    for path, file in theirs.items():
        assert file_checksum(file) == file_checksum(folder / path)


def test_sessions_differ_in_noise_and_listeners_in_response(make: Make) -> None:
    one, again, other = make(n_subjects=2, n_sessions=2, n_minutes=1.0)[:3]
    noise = [part.without_artefacts() - part.clean_response() for part in (one, again)]
    assert abs(np.corrcoef(noise[0][:9600].ravel(), noise[1][:9600].ravel())[0, 1]) < 0.1
    responses = [
        part.clean_response()[part.sound_starts[0] : part.sound_starts[1]]
        for part in (one, again, other)
    ]
    np.testing.assert_array_equal(responses[0], responses[1])
    assert abs(np.corrcoef(responses[0].ravel(), responses[2].ravel())[0, 1]) < 0.9


def test_another_seed_makes_other_listeners(make: Make) -> None:
    one, other = (make(seed=seed, n_minutes=1.0)[0].listener.fields for seed in (0, 1))
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.9


def test_recording_is_response_plus_noise_to_within_the_converter(make: Make) -> None:
    recording = make(artefacts=False, n_minutes=1.0)[0]
    expected = recording.without_artefacts()
    step = recording.listener.noise_level / 12
    assert np.abs(recording.raw().get_data().T - expected).max() <= 0.5001 * step


def test_snr_is_the_ratio_of_amplitudes(make: Make) -> None:
    recording = make(snr=0.5)[0]
    clean = recording.clean_response()[recording.sound_starts[0] : recording.sound_starts[1]]
    noise = recording.without_artefacts() - recording.clean_response()
    assert clean.var(axis=0).mean() / noise.var(axis=0).mean() == pytest.approx(0.25, rel=0.15)


def test_correlation_of_the_response_stays_below_what_is_found_in_real_data(make: Make) -> None:
    recording = make("synthetic", n_subjects=1, n_sessions=1, n_minutes=8.0)[0]
    assert 0.05 < recording.signal_correlation() <= 0.2


def test_without_snr_there_is_nothing_to_find(make: Make) -> None:
    recording = make(snr=0, n_minutes=1.0)[0]
    assert not recording.clean_response().any()
    assert recording.signal_correlation() == 0


def test_planted_response_peaks_between_50_and_250_ms(make: Make) -> None:
    """Cross-correlation of the audio's envelope with the recording, artefacts and all."""
    recording = make(n_minutes=3.0)[0]
    data = recording.raw().get_data().T
    data = (data - np.median(data, axis=0)) / recording.listener.noise_level
    data = data.clip(-5, 5)
    envelope = np.zeros(len(data))
    for start, drive in zip(recording.sound_starts, recording.experiment.drives, strict=True):
        envelope[start : start + len(drive)] = drive[:, :-1].mean(axis=1)
    changes = np.diff(envelope, prepend=0)
    begin, stop = recording.sound_starts[0], recording.n_samples - 200
    lags = np.arange(-80, 160)
    power = np.array(
        [((changes[begin:stop] @ data[begin + lag : stop + lag]) ** 2).sum() for lag in lags]
    )
    seconds = lags / SAMPLE_RATE
    assert 0.03 <= seconds[power.argmax()] <= 0.25
    assert power.max() > 5 * power[seconds < -0.1].max()


def test_artefacts_are_where_they_belong(make: Make) -> None:
    spoilt = make("synthetic", n_subjects=1, n_sessions=1, n_minutes=2.0)[0]
    noisy, flat = spoilt.bad_sensors()
    data = spoilt.raw().get_data().T
    level = spoilt.listener.noise_level
    difference = np.abs(data - spoilt.without_artefacts()) / level
    good = np.setdiff1d(np.arange(data.shape[1]), [*noisy, *flat])
    assert np.all(data[:, flat] == 0)
    assert np.all(difference[:, noisy].std(axis=0) > 5)
    jumps = difference[:, good] > 900
    assert 0 < jumps.any(axis=1).mean() < 0.2
    assert jumps.mean() < 0.01
    blinks = (difference[:, good] > 3).mean(axis=1) > 0.05  # many sensors at once
    assert 0.005 < blinks.mean() < 0.2


def test_clean_study_has_no_bad_sensors(make: Make) -> None:
    noisy, flat = make(artefacts=False)[0].bad_sensors()
    assert len(noisy) == len(flat) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "fmri"}, "modality='fmri'"),
        ({"n_subjects": 0}, "n_subjects=0"),
        ({"snr": -1}, "snr=-1"),
        ({"n_sensors": 500}, "choose 4 to 102"),
        ({"n_minutes": 90}, "lasts only 22"),
        ({"n_minutes": 0}, "at least half a minute"),
        ({"n_minuts": 3}, "Did you mean 'n_minutes'"),
    ],
)
def test_impossible_options_are_refused(
    make: Make, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_missing_voice_is_named_with_its_remedy() -> None:
    with pytest.raises(ImportError, match=r"pip install bm\[demo\]"):
        package_version("a-package-that-is-not-there")


def _test_words(recording: SyntheticRecording) -> pd.DataFrame:
    """Test segments by the published split."""
    events = recording.load_events()
    blocks = assign_splits(merge_blocks(create_blocks(events)))
    blocks = blocks[blocks["split"] == "test"]
    n_samples = int(recording.n_samples * 120 / SAMPLE_RATE)
    return find_windows(events, blocks, WindowRule(condition="word"), n_samples, 120.0)
