"""Losses that are no number: training stops with the batch kept, or leaves it out."""

from pathlib import Path

import pytest
import torch
from ranks import build
from test_distrib import SETTINGS

from bm.divergence import BAD_BATCH
from bm.solver import Solver

LONGER = ["optim.max_batches=6", "simpleconv.merger_dropout=0"]  # nothing random in a step


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An experiment in which one sample of one recording's brain signal is no number."""
    settings = [*SETTINGS, *LONGER, f"cache={tmp_path_factory.mktemp('cache')}"]
    build(settings)
    return settings


def spoil(solver: Solver) -> int:
    """Make a sample of a training segment NaN; returns the row of the segment."""
    dataset = solver.splits.datasets["train"]
    batches = list(solver._loader("train", solver.training.max_batches).epoch(0))
    row = int(batches[2].row[0])
    windows = dataset.windows
    place = solver.splits.datasets["train"].store.first_row[windows.recording[row]]
    dataset.store._flat[place + windows.first[row] + 20, 3] = float("nan")
    return row


def test_training_stops_with_the_first_bad_batch_in_a_file(
    settings: list[str], tmp_path: Path
) -> None:
    solver = build(settings)
    row = spoil(solver)
    solver.folder = tmp_path
    with pytest.raises(FloatingPointError, match=r"became nan in training \(epoch 1\).*bad_batch"):
        solver._train(0)
    kept = torch.load(tmp_path / BAD_BATCH, weights_only=True)
    is_bad = kept["meg"].isnan().flatten(1).any(dim=1)
    assert row in kept["row"][is_bad].tolist()
    assert not is_bad.all()
    assert kept["epoch"] == 0


def test_a_bad_batch_is_left_out_counted_and_changes_nothing(settings: list[str]) -> None:
    solver = build([*settings, "optim.on_bad_loss=skip"])
    sound = build([*settings, "optim.on_bad_loss=skip"])
    assert sound._train(0)["n_left_out"] == 0
    spoil(solver)
    found = solver._train(0)
    assert 1 <= found["n_left_out"] <= 3  # windows overlap: other segments can hold the sample
    state = solver.models.state_dict()
    assert all(value.isfinite().all() for value in state.values())
    batches = [
        batch.row for batch in solver._loader("train", 6).epoch(0) if batch.meg.isfinite().all()
    ]
    assert len(batches) == 6 - found["n_left_out"]
    without = build(settings)
    loader = without._loader("train", 6)
    loader._divide = lambda order: batches  # type: ignore[method-assign]
    without._loader = lambda *_: loader  # type: ignore[method-assign,assignment]
    loss = without._train(0)["loss"]
    assert loss == pytest.approx(found["loss"], rel=1e-6)
    for name, value in without.models.state_dict().items():
        torch.testing.assert_close(state[name], value, msg=name)


def test_without_a_single_good_batch_training_stops(settings: list[str]) -> None:
    solver = build([*settings, "optim.on_bad_loss=skip"])
    solver.splits.datasets["train"].store._flat.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="became nan in all of training"):
        solver._train(0)
