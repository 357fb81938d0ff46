"""The ceiling of simulated studies: what the ideal decoder reaches."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bm.core.cache import Cache
from bm.evaluation import ceiling
from bm.evaluation.ceiling import ideal_accuracy
from bm.studies import from_selection
from bm.studies.simulated.simulation import SAMPLE_RATE
from bm.studies.synthetic import SyntheticRecording

N_CANDIDATES = 40
LAGS = np.arange(0, 64, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulated")


def simulate(folder: Path, **options: object) -> list[SyntheticRecording]:
    selection = {"study": "fake", "n_sensors": 24, "n_minutes": 6.0, **options}
    return list(from_selection(selection, Cache(folder)))


def segments(recordings: list[SyntheticRecording], step: float = 3.2) -> pd.DataFrame:
    """Windows one after the other in the second half of the story, the same for everyone."""
    parts = []
    for index, recording in enumerate(recordings):
        begin = recording.sound_starts[-1] / SAMPLE_RATE + 1.0
        times = begin + step * np.arange(N_CANDIDATES)
        parts.append({"recording": index, "time": times, "candidate": np.arange(N_CANDIDATES)})
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)


def test_nothing_to_hear_is_chance(folder: Path) -> None:
    recordings = simulate(folder, snr=0)
    found = ideal_accuracy(segments(recordings), recordings)
    assert found == {k: pytest.approx(k / N_CANDIDATES) for k in (1, 5, 10)}


def test_weak_response_is_near_chance(folder: Path) -> None:
    recordings = simulate(folder, snr=1e-4, n_sessions=3)
    found = ideal_accuracy(segments(recordings), recordings, ks=(10,))
    n_queries = N_CANDIDATES * len(recordings)
    assert found[10] == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / n_queries))


def test_strong_response_is_always_found(folder: Path) -> None:
    recordings = simulate(folder, snr=2.0)
    assert ideal_accuracy(segments(recordings), recordings) == {1: 1.0, 5: 1.0, 10: 1.0}


def test_more_signal_means_a_higher_ceiling(folder: Path) -> None:
    found = []
    for snr in (0.02, 0.06, 0.18):
        recordings = simulate(folder, snr=snr)
        found.append(ideal_accuracy(segments(recordings), recordings)[1])
    assert found[0] + 0.1 < found[1] < found[2] - 0.05


def test_trained_decoder_stays_below_the_ceiling(folder: Path) -> None:
    """Ridge regression from lagged sensors to mel bands, on recordings without artefacts."""
    recordings = simulate(folder, snr=0.08, artefacts=False, n_sessions=2, n_subjects=1)
    queries = segments(recordings)
    best = ideal_accuracy(queries, recordings, ks=(5,))[5]
    trained = max(_ridge_accuracy(recordings, queries, k=5, penalty=p) for p in (0.01, 0.1, 1.0))
    assert 3 * 5 / N_CANDIDATES < trained < best < 1
    noise = [recording.without_artefacts().std() for recording in recordings]
    assert noise[0] == pytest.approx(noise[1], rel=0.1)


@pytest.mark.parametrize("modality", ["meg", "eeg"])
def test_decoder_knows_the_noise_exactly(folder: Path, modality: str) -> None:
    """In its coordinates, the noise of simulated recordings has variance 1 and no correlations."""
    recording = simulate(folder, snr=0, modality=modality, n_subjects=1)[0]
    length = 240
    flat = recording.bad_sensors()[1]
    whiten = ceiling._Whitener.of(recording.listener, flat, ceiling._window_covariance(length))
    first = np.arange(0, recording.n_samples - length, length)
    white = whiten(ceiling._windows(recording.without_artefacts(), first, length))
    white = white.reshape(len(first), -1, 24 - len(flat))
    assert white.shape[1] > 60
    assert (white**2).mean() == pytest.approx(1, abs=0.02)
    assert (white**2).mean(axis=(0, 2)) == pytest.approx(1, abs=0.15)  # over time's directions
    assert (white**2).mean(axis=(0, 1)) == pytest.approx(1, abs=0.1)  # over those of sensors
    flattened = white.reshape(-1, white.shape[2])
    assert np.abs(np.corrcoef(flattened.T) - np.eye(white.shape[2])).max() < 0.06


def test_part_of_the_recordings_gives_nearly_the_ceiling_of_all(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recordings = simulate(folder, snr=0.08, n_sessions=2)
    queries = segments(recordings)
    everything = ideal_accuracy(queries, recordings, ks=(5,))[5]
    with caplog.at_level("INFO"):
        half = ideal_accuracy(queries, recordings, ks=(5,), max_queries=100)[5]
        ideal_accuracy(queries, recordings, ks=(5,), max_queries=1)
    assert half == pytest.approx(everything, abs=0.2)
    used = [message.split()[2] for message in caplog.messages if message.startswith("Ceiling")]
    assert used == ["80", "40"]  # one recording of each listener; one at least


def test_listener_who_misses_a_candidate_is_named(folder: Path) -> None:
    recordings = simulate(folder, snr=0.1)
    queries = segments(recordings).drop(index=5)
    with pytest.raises(ValueError, match="simulated-01 never hears 1 of 40"):
        ideal_accuracy(queries, recordings)


def test_session_may_miss_what_another_session_has(folder: Path) -> None:
    recordings = simulate(folder, snr=2.0, n_subjects=1, n_sessions=2)
    queries = segments(recordings).drop(index=[0, 1, 2])
    assert ideal_accuracy(queries, recordings)[1] == 1.0


def test_missing_column_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="'candidate'"):
        ideal_accuracy(pd.DataFrame({"recording": [0], "time": [1.0]}), simulate(folder))


def _ridge_accuracy(
    recordings: list[SyntheticRecording], queries: pd.DataFrame, k: int, penalty: float
) -> float:
    """Top-k accuracy of a decoder trained on the first half of the story."""
    pairs = [_lagged(recording) for recording in recordings]
    first_half = [
        slice(recording.sound_starts[0] // 4, recording.sound_starts[1] // 4)
        for recording in recordings
    ]
    inputs = np.concatenate([pair[0][part] for pair, part in zip(pairs, first_half, strict=True)])
    targets = np.concatenate([pair[1][part] for pair, part in zip(pairs, first_half, strict=True)])
    mean = targets.mean(axis=0)
    gram = inputs.T @ inputs
    ridge = penalty * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram + ridge, inputs.T @ (targets - mean))
    hits = []
    for index, (signal, bands) in enumerate(pairs):
        first = (queries["time"][queries["recording"] == index] * 40).astype(int).to_numpy() - 20
        estimates = _standard(np.stack([signal[f : f + 120] @ weights for f in first]))
        candidates = _standard(np.stack([bands[f : f + 120] - mean for f in first]))
        scores = estimates @ candidates.T
        hits.append((scores > np.diag(scores)[:, None]).sum(axis=1) < k)
    return float(np.mean(hits))


def _lagged(recording: SyntheticRecording) -> tuple[np.ndarray, np.ndarray]:
    """Sensors [t, C * lags] and mel bands [t, bands] at 40 Hz."""
    signal = recording.without_artefacts() / recording.listener.noise_level
    padded = np.pad(signal - signal.mean(axis=0), ((0, LAGS[-1] + 4), (0, 0)))
    smooth = np.add.reduceat(padded, np.arange(0, len(padded), 4), axis=0) / 4
    n_times = len(signal) // 4
    inputs = np.concatenate([smooth[lag // 4 : lag // 4 + n_times] for lag in LAGS], axis=1)
    bands = np.zeros((len(signal), 8), np.float32)
    for start, drive in zip(recording.sound_starts, recording.experiment.drives, strict=True):
        bands[start : start + len(drive)] = drive[:, :8]
    return inputs, bands[: 4 * n_times].reshape(n_times, 4, 8).mean(axis=1)


def _standard(windows: np.ndarray) -> np.ndarray:
    centred = (windows - windows.mean(axis=1, keepdims=True)).reshape(len(windows), -1)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)
