"""Memory of training: counted before it begins, and explained where it runs out."""

import logging
from dataclasses import replace

import pytest
import torch
from ranks import build

from bm import budget
from bm.budget import Budget, explaining_memory, log_budget, segment_bytes
from bm.segments import SignalStore, store
from bm.solver import Solver

SETTINGS = (
    "preset=demo",
    "dset.selections=[fake]",
    "dset.features=[MelSpectrum]",
    "dset.features_params.MelSpectrum.n_mels=8",
    "dset.sample_rate=60",
    "dset.block_grouping=stimulus_time",
    "simpleconv.depth=2",
    "simpleconv.hidden.meg=8",
    "optim.batch_size=32",
)


@pytest.fixture(scope="module")
def solver(tmp_path_factory: pytest.TempPathFactory) -> Solver:
    return build([*SETTINGS, f"cache={tmp_path_factory.mktemp('cache')}"])


def test_counting_changes_neither_weights_nor_random_numbers(solver):
    before = {name: value.clone() for name, value in solver.models.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert segment_bytes(solver) > 0
    assert torch.equal(torch.rand(4), expected)
    for name, value in solver.models.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_segment_takes_its_signals_targets_and_at_least_each_layers_output(solver):
    batch = solver.splits.datasets["train"].gather(torch.arange(1))
    outputs = []
    hooks = [
        module.register_forward_hook(lambda _, __, output: outputs.append(output.nbytes))
        for module in solver.models.modules()
        if isinstance(module, torch.nn.Conv1d)
    ]
    solver.models.eval()
    with torch.no_grad():
        solver.predict(batch)
    for hook in hooks:
        hook.remove()
    at_least = 2 * (batch.meg.nbytes + batch.features.nbytes) + sum(outputs)
    assert at_least < segment_bytes(solver) < 6 * at_least


def test_budget_holds_signals_features_and_as_many_segments_as_are_held(solver):
    found = Budget.of(solver)
    train = solver.splits.datasets["train"]
    n_samples = sum(len(array) for array in train.store.arrays)
    assert found.signals == n_samples * 16 * 4
    rows, *others = train.stimuli.rows
    assert not others
    assert found.features == 2 * rows.nbytes + train.stimuli.timelines[0].nbytes  # also scaled
    assert found.n_segments == 32
    assert found.batch == 32 * found.segment
    assert found.fits
    assert not replace(found, free=found.batch).fits


def test_a_batch_without_room_is_told_with_the_remedy(solver, monkeypatch, caplog):
    whole = Budget.of(solver)
    scarce = whole.model + 5 * whole.segment
    monkeypatch.setattr(budget, "free_memory", lambda device: scarce)
    with caplog.at_level(logging.INFO, "bm.budget"):
        log_budget(solver)
    assert "32 segments at a time" in caplog.text
    assert "optim.micro_batch=2 (instead of 32" in caplog.text
    assert "dset.residency=disk (signals are on host)" in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError("out of memory"),
    ],
)
def test_running_out_of_memory_names_the_remedy(solver, error):
    with pytest.raises(MemoryError, match=r"What helps: optim\.micro_batch=16"):
        with explaining_memory(solver):
            raise error


def test_other_errors_stay_as_they_are(solver):
    with pytest.raises(RuntimeError, match="^shapes"), explaining_memory(solver):
        raise RuntimeError("shapes cannot be multiplied")


def test_signals_without_room_are_refused_before_they_are_copied(solver, monkeypatch):
    signals = [item.signal for item in solver.splits.prepared]
    monkeypatch.setattr(store, "available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match="only 0.00 GB are free for dset.residency=host. Set"):
        SignalStore(signals, "host")
    assert SignalStore(signals, "auto").residency == "disk"


def test_choice_of_residency_is_told_with_its_reason(monkeypatch, caplog):
    monkeypatch.setattr(store, "available_memory", lambda: 10 * 10**9)
    with caplog.at_level(logging.INFO, "bm.segments.store"):
        assert store.choose_residency(2 * 10**9, "cpu") == "host"
        assert store.choose_residency(6 * 10**9, "cpu") == "disk"
    assert "auto is host: signals take 2.00 GB, and may take 50 % of the 10.00 GB" in caplog.text
    assert "auto is disk: signals take 6.00 GB" in caplog.text
