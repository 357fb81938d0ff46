"""Controls: at chance where the answer is gone, and the lag curve peaks where it was planted."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import SmallRecording, make_splits, tell_story

from bm.core.cache import Cache
from bm.evaluation import SegmentFeatures, retrieve
from bm.evaluation import controls as control
from bm.evaluation.controls import AS_REAL, AT_CHANCE
from bm.evaluation.retrieval import Retrieval
from bm.recordings import Signal
from bm.segments import (
    SegmentBatch,
    SegmentDataset,
    SegmentLoader,
    SignalStore,
    Splits,
)
from bm.segments.prepare import BlockRule, Prepared, SignalSettings, prepare

RATE = 120
PLANTED = 36
"""Samples (0.3 s) by which the planted response follows the sound."""


@dataclass(frozen=True)
class Planted:
    """Recordings whose sensors are the features of the sound, later, and in noise."""

    splits: Splits
    prepared: list[Prepared]

    @property
    def test(self) -> SegmentDataset:
        return self.splits.datasets["test"]

    def retrieve(self, source: SegmentDataset, dataset: SegmentDataset | None = None) -> Retrieval:
        dataset = dataset or self.test
        batches = control.heard_with(SegmentLoader(dataset, 64).in_order(), source)
        return retrieve(dataset, batches, decode, heard)


def decode(batch: SegmentBatch) -> SegmentFeatures:
    """The ideal decoder for responses without any delay: sensors are features."""
    return SegmentFeatures(batch.meg - batch.meg.mean(dim=-1, keepdim=True), batch.row)


def heard(batch: SegmentBatch) -> SegmentFeatures:
    """What it should find."""
    return SegmentFeatures(batch.features - batch.features.mean(dim=-1, keepdim=True), batch.row)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("planted")
    cache = Cache(folder / "cache")
    people = [
        SmallRecording(
            cache, tell_story(folder, 60, lead_in=8.0), f"r{n}", f"s{n}", n, n_sensors=20
        )
        for n in range(4)
    ]
    rule = BlockRule(block_grouping="stimulus_time", test_ratio=0.4)
    prepared = prepare(people, SignalSettings(), rule)
    splits = make_splits([], cache, prepared=prepared, baseline=False)
    stimuli, begin, changed = splits.datasets["test"].stimuli, 0, []
    for number, item in enumerate(prepared):
        n = item.signal.n_samples
        heard = stimuli.rows[0][stimuli.timelines[0][begin : begin + n]].numpy()
        begin += n
        noise = np.random.default_rng(number).normal(size=heard.shape) * 4 * heard.std()
        data = (np.roll(heard, PLANTED, axis=0) + noise).astype(np.float32)
        signal = Signal(data, item.signal.sample_rate, item.signal.sensors)
        changed.append(Prepared(item.recording, signal, item.events, item.blocks))
    store = SignalStore([item.signal for item in changed], "host")
    datasets = {
        name: SegmentDataset(one.table, store, one.stimuli, one.n_times, 0)
        for name, one in splits.datasets.items()
    }
    return Planted(Splits(datasets, changed, splits.subjects, splits.layouts), changed)


def lengths(planted: Planted) -> list[int]:
    return [item.signal.n_samples for item in planted.prepared]


def test_lag_curve_peaks_where_the_response_was_planted(planted):
    found = {
        lag: planted.retrieve(control.shifted(planted.test, lengths(planted), lag)).accuracy(10)
        for lag in range(-72, 73, 12)
    }
    assert max(found, key=found.__getitem__) == PLANTED
    assert found[PLANTED] > 0.9
    assert found[-72] < 0.3


@pytest.mark.parametrize("name", ["noise", "shuffled", "silence"])
def test_control_is_not_above_chance_and_the_real_result_is(planted, name):
    at_peak = control.shifted(planted.test, lengths(planted), PLANTED)
    real = control.outcome("real", AS_REAL, planted.retrieve(at_peak), 10)
    assert real.verdict == "above chance"
    assert not real.is_suspicious
    assert control.outcome(name, AT_CHANCE, planted.retrieve(at_peak), 10).is_suspicious
    for seed in range(4):
        source = {
            "noise": lambda seed: control.noise(at_peak, planted.prepared, seed),
            "shuffled": lambda seed: control.shuffled(at_peak, seed),
            "silence": lambda seed: control.silence(planted.test, planted.prepared, seed),
        }[name](seed)
        found = control.outcome(name, AT_CHANCE, planted.retrieve(source), 10)
        # The sounds of this test hum at 3 Hz, so noise of their spectrum can also be below chance.
        assert found.verdict == "at chance" or (name, found.verdict) == ("noise", "below chance")
        assert not found.is_suspicious
        assert found.interval.over == "subjects and sentences"
    table = control.outcome_table([real, found])
    assert table["verdict"].tolist() == ["above chance", found.verdict]
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()


def test_noise_floor_is_heard_in_silence(planted):
    source = control.silence(planted.test, planted.prepared, 0)
    lead_in = round(8.0 * RATE)
    end = max(item.signal.n_samples for item in planted.prepared)
    first = source.table["first"].to_numpy()
    assert (first >= 0).all()
    assert ((first + source.n_times <= lead_in + 1) | (first > lead_in + 100 * RATE)).all()
    assert (first + source.n_times <= end).all()
    assert len(np.unique(first)) > 10


def test_recording_without_silence_has_no_noise_floor(planted):
    endless = planted.prepared[0].events.assign(duration=1e4, start=0.0)
    item = planted.prepared[0]
    loud = Prepared(item.recording, item.signal, endless, item.blocks)
    assert control.silence(planted.test, [loud, *planted.prepared[1:]], 0) is None


def test_shuffled_pairs_are_the_signals_of_the_same_recording(planted):
    source = control.shuffled(planted.test, 0)
    assert (source.table["first"] != planted.test.table["first"]).mean() > 0.9
    for _, rows in planted.test.table.groupby("recording").indices.items():
        own, other = (one.table["first"].to_numpy()[rows] for one in (planted.test, source))
        assert sorted(own) == sorted(other)


def test_mostly_silent_segments_are_removed_from_queries_and_candidates(planted):
    kept = control.without_silence(planted.test, 0.95)
    shares = planted.test.stimuli.mask[planted.test.samples(torch.arange(len(planted.test)))]
    assert 0 < len(kept) < len(planted.test)
    assert len(kept) == int((shares.float().mean(dim=1) >= 0.95).sum())
    found = planted.retrieve(control.shifted(kept, lengths(planted), PLANTED), kept)
    assert found.accuracy(10) > 0.9
    assert len(found.table) == len(kept)


def test_some_segments_are_the_same_whenever_asked(planted):
    first, again = (control.some_segments(planted.test, 20, 1) for _ in range(2))
    pd.testing.assert_frame_equal(first.table, again.table)
    assert len(first) == 20
    assert len(control.some_segments(planted.test, 10**6, 1)) == len(planted.test)
