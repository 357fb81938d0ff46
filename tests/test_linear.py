"""The linear baseline finds a planted linear response, and nothing where there is none."""

import numpy as np
import pytest
import torch
from small_splits import make_dataset

from bm.evaluation import retrieve
from bm.evaluation.linear import BackwardModel
from bm.segments import SegmentBatch, SegmentDataset, SegmentLoader, SignalStore

STORY = [(f"sentence {n // 6}", n % 6, f"word{n % 7}") for n in range(60)]


def planted(strength: float, seed: int) -> SegmentDataset:
    """Two listeners whose two sensors each hear their own mixture of the features in noise."""
    dataset = make_dataset([STORY, STORY], seed=1)
    stimuli, begin, signals = dataset.stimuli, 0, []
    rng = np.random.default_rng(seed)
    for number, array in enumerate(dataset.store.arrays):
        heard = stimuli.rows[0][stimuli.timelines[0][begin : begin + len(array)]].numpy()
        begin += len(array)
        mixture = np.random.default_rng([9, number]).normal(size=(heard.shape[1], 2))
        data = strength * heard @ mixture + rng.normal(size=array.shape)
        signals.append(data.astype(np.float32))
    store = dataset.store
    flat = torch.from_numpy(np.concatenate(signals))
    store._flat = flat
    assert isinstance(store, SignalStore)
    return dataset


def unscaled(batch: SegmentBatch) -> SegmentBatch:
    return batch


def accuracy(strength: float) -> float:
    model = BackwardModel(unscaled, sample_rate=2.0, lags=(0.0, 0.5))
    model.fit(planted(strength, 0), planted(strength, 1))
    assert set(model.weights) == {0, 1}
    test = planted(strength, 2)
    batches = SegmentLoader(test.without_features(), 16).in_order()
    return retrieve(test, batches, model.estimate, model.target).accuracy(10)


def test_planted_linear_response_is_found_by_ridge_regression():
    assert accuracy(5.0) > 0.9
    assert accuracy(0.0) == pytest.approx(10 / 60, abs=0.12)


def test_weights_are_those_of_least_squares_where_nothing_is_penalised():
    data = planted(2.0, 0)
    model = BackwardModel(unscaled, 2.0, lags=(0.0,), penalties=(0.0,)).fit(data, data)
    rows = torch.from_numpy(np.flatnonzero(data.table["subject"] == 0))
    batch = data.gather(rows)
    inputs = batch.meg.transpose(1, 2).flatten(0, 1).numpy()
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    targets = batch.features.transpose(1, 2).flatten(0, 1).numpy()
    expected = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    np.testing.assert_allclose(model.weights[0].numpy(), expected, atol=1e-4)
