"""Segments full of artefacts are left out of training, and others aren't."""

import numpy as np
import pytest
from helpers import RATE, SmallRecording, make_splits, tell_story

from bm.core.cache import Cache
from bm.segments import Splits
from bm.segments.prepare import BlockRule, SignalSettings, prepare
from bm.segments.rejection import Limits, choose_limits, reject_segments

N, C, T = 80, 12, 60


@pytest.fixture
def segments() -> np.ndarray:
    """A response and noise; no artefact."""
    generator = np.random.default_rng(0)
    response = np.sin(np.linspace(0, 6, T)) * generator.normal(size=(C, 1))
    return (response + generator.normal(size=(N, C, T))).astype(np.float32)


def chosen(segments: np.ndarray) -> tuple[Limits, np.ndarray]:
    limits = choose_limits(segments, np.random.default_rng(1))
    return limits, limits.are_met(np.ptp(segments, axis=2))


def test_segments_in_which_most_sensors_jump_are_found_and_few_others_are_lost(segments):
    jumps = np.array([3, 17, 40, 61])
    segments[jumps, 2:, 20:] += 80
    limits, good = chosen(segments)
    assert not good[jumps].any()
    assert good.sum() == N - 4
    assert (limits.amplitude < 40).all()


def test_clean_recording_loses_nothing(segments):
    _, good = chosen(segments)
    assert good.all()


def test_at_least_half_is_kept_whatever_comes(segments):
    segments[: N // 2 + 5, :, 30:] += np.random.default_rng(2).normal(size=(N // 2 + 5, C, 30)) * 50
    _, good = chosen(segments)
    assert good.mean() >= 0.5


def test_share_is_of_sensors_beyond_their_limits():
    limits = Limits(np.array([1.0, 2.0, 3.0, 4.0]), 0.25)
    amplitude = np.array([[1, 2, 3, 4], [9, 2, 3, 4], [9, 9, 3, 4]], dtype=float)
    assert limits.are_met(amplitude).tolist() == [True, True, False]


@pytest.fixture
def splits(cache: Cache, tmp_path) -> tuple[Splits, float]:
    """Two listeners, the first of whom moves for 8 s in the middle of a training block."""
    tables = [tell_story(tmp_path, lead_in=1.0) for _ in range(2)]
    people = [
        SmallRecording(cache, table, f"r{n}", f"s{n}", n, 16) for n, table in enumerate(tables)
    ]
    rule = BlockRule(block_grouping="stimulus_time")
    clean = make_splits([], cache, prepared=prepare(people, SignalSettings(), rule))
    table = clean.datasets["train"].table
    own = table[table["recording"] == 0]
    first = int(own["first"].iloc[len(own) // 2])
    store = clean.datasets["train"].store
    assert store._flat is not None
    store._flat[first : first + int(8 * RATE) : 7] += 1e-3
    return clean, first / RATE


def test_training_segments_with_movements_go_and_all_test_segments_stay(splits):
    before, begin = splits
    after = reject_segments(before, seed=0)
    assert after.datasets["test"] is before.datasets["test"]
    old, new = (one.datasets["train"].table for one in (before, after))
    gone = old[~old.set_index(["recording", "first"]).index.isin(
        new.set_index(["recording", "first"]).index)]  # fmt: skip
    times = old["first"] / RATE
    moving = old[(old["recording"] == 0) & (times > begin - 2.5) & (times < begin + 7.5)]
    assert len(moving) > 5
    assert set(moving.index) <= set(gone.index)
    others = set(gone.index) - set(moving.index)
    assert len(others) < 0.3 * len(old)
    again = reject_segments(before, seed=0).datasets["train"].table
    assert again["first"].tolist() == new["first"].tolist()


def test_recordings_with_few_segments_are_left_alone(splits, caplog, monkeypatch):
    before, _ = splits
    monkeypatch.setattr("bm.segments.rejection.MIN_SEGMENTS", 10_000)
    after = reject_segments(before, seed=0)
    assert len(after.datasets["train"]) == len(before.datasets["train"])
    assert "small/r0: too few segments for autoreject" in caplog.text
