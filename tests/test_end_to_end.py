"""From files on disk to top-10: the whole way, in small, on BIDS data."""

from pathlib import Path

import numpy as np
import pytest
from fixtures.bids import write_study, write_telluride

from bm.build import build_solver
from bm.config import from_hydra
from bm.solver import Solver
from bm.train import main

SMALL = [
    "dset.features=[MelSpectrum]",
    "dset.features_params.MelSpectrum.n_mels=8",
    "simpleconv.hidden.meg=8",
    "simpleconv.depth=2",
    "simpleconv.merger_channels=6",
    "simpleconv.merger_pos_dim=8",
    "simpleconv.initial_linear=6",
    "optim.batch_size=8",
    "optim.epochs=1",
    "device=cpu",
]


def train(root: Path, tmp_path: Path, *overrides: str) -> Solver:
    argv = [*SMALL, "dset.selections=[bids]", f"selections.bids.root={root}"]
    argv += [f"cache={tmp_path / 'cache'}", *overrides]
    solver = build_solver(from_hydra(main.get_xp(argv).cfg), tmp_path / "xp")
    solver.run()
    return solver


def test_the_example_of_the_guide_trains_and_is_judged(tmp_path: Path) -> None:
    write_study(tmp_path / "study", None)
    solver = train(tmp_path / "study", tmp_path)
    assert np.isfinite(solver.history[0]["train"]["loss"])
    retrieval = solver.retrieve()
    assert retrieval.n_candidates > 10
    assert set(retrieval.table["subject"]) == set(range(len(solver.splits.subjects)))
    assert (tmp_path / "xp" / "checkpoint.th").exists()


def test_real_meg_written_as_bids_trains(tmp_path: Path, shared_data: Path) -> None:
    write_telluride(tmp_path / "telluride", shared_data / "telluride_meg")
    solver = train(
        tmp_path / "telluride",
        tmp_path,
        "dset.sample_rate=100",
        "dset.condition=0.1",
        "dset.tmin=0",
        "dset.tmax=0.4",
        "dset.min_block_duration=0.6",
        "dset.test_ratio=0.3",
        "dset.valid_ratio=0.2",
        "task.offset_meg_ms=50",
    )
    assert solver.splits.datasets["train"].store.n_sensors == 148
    assert np.isfinite(solver.history[0]["train"]["loss"])


def test_missing_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        train(tmp_path / "nowhere", tmp_path)
