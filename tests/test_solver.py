"""Training: metrics, checkpoints, and a restart that changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bm.checkpoint import CHECKPOINT, read_checkpoint

SETTINGS = [
    "dset.selections=[fake]",
    "+selections.fake.n_minutes=4",
    "dset.features=[MelSpectrum]",
    "dset.features_params.MelSpectrum.n_mels=16",
    "dset.sample_rate=60",
    "dset.block_grouping=stimulus_time",
    "simpleconv.hidden.meg=16",
    "simpleconv.depth=4",
    "simpleconv.dilation_period=2",
    "simpleconv.merger_channels=12",
    "simpleconv.merger_pos_dim=32",
    "simpleconv.initial_linear=12",
    "optim.batch_size=16",
    "optim.epochs=4",
    "optim.lr=1e-3",
    "device=cpu",
]


class Experiment:
    """A `dora run` in a folder of its own, as a real process."""

    def __init__(self, folder: Path, env: dict[str, str], overrides: list[str] | None = None):
        self.folder = folder
        self.command = [sys.executable, "-m", "dora", "-P", "bm", "run", *SETTINGS]
        self.command += overrides or []
        self.env = env
        folder.mkdir(exist_ok=True)

    def run(self) -> None:
        done = subprocess.run(
            self.command, cwd=self.folder, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def kill_when(self, condition: Callable[[], bool]) -> None:
        """Start, and kill -9 as soon as `condition` holds."""
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not condition():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def xp(self) -> Path:
        """Folder of the one experiment."""
        (folder,) = (self.folder / "outputs" / "xps").iterdir()
        return folder

    @property
    def history(self) -> list[dict[str, dict[str, float]]]:
        return json.loads((self.xp / "history.json").read_text())

    def n_epochs(self) -> int:
        files = list(self.folder.glob("outputs/xps/*/history.json"))
        return len(json.loads(files[0].read_text())) if files else 0


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, python_env: dict[str, str]
) -> Experiment:
    experiment = Experiment(tmp_path_factory.mktemp("run") / "whole", python_env)
    experiment.run()
    return experiment


def test_training_learns_the_simulated_response(uninterrupted: Experiment) -> None:
    history = uninterrupted.history
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]
    test = [epoch["test"] for epoch in history if "test" in epoch][-1]
    assert test["segment_top10"] > 3 * test["chance_top10"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_in_preprocessing_and_in_an_epoch_changes_no_number(
    uninterrupted: Experiment, tmp_path: Path, python_env: dict[str, str]
) -> None:
    experiment = Experiment(tmp_path / "killed", python_env)
    signals = experiment.folder / "cache" / "signals"
    experiment.kill_when(lambda: any(signals.glob(".tmp-*")))
    assert not any((entry / "entry.json").exists() for entry in signals.glob("[!.]*-session-2*"))

    def is_in_an_epoch() -> bool:
        if experiment.n_epochs() < 2:
            return False
        time.sleep(0.05)
        return True

    experiment.kill_when(is_in_an_epoch)
    assert 2 <= experiment.n_epochs() < 4
    experiment.run()
    assert experiment.history == uninterrupted.history


def test_checkpoint_is_plain_and_self_contained(uninterrupted: Experiment) -> None:
    state = read_checkpoint(uninterrupted.xp / CHECKPOINT)  # weights_only: no code can run
    assert state["config"]["dset"]["selections"] == ["fake"]
    assert state["precision"] == "fp32"
    assert state["subjects"] == ["fake/simulated-01", "fake/simulated-02"]
    assert len(state["sensors"][0]) == 16
    assert state["features"] == [{"name": "MelSpectrum", "dimension": 16}]
    assert state["scaler"]["centre"].shape == (2, 16)
    assert state["layouts"].shape[1:] == (16, 2)
    assert state["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_a_finished_run_starts_no_epoch(uninterrupted: Experiment) -> None:
    before = (uninterrupted.xp / CHECKPOINT).read_bytes()
    uninterrupted.run()
    assert (uninterrupted.xp / CHECKPOINT).read_bytes() == before


def test_damaged_checkpoint_is_named(uninterrupted: Experiment, tmp_path: Path) -> None:
    damaged = tmp_path / CHECKPOINT
    damaged.write_bytes((uninterrupted.xp / CHECKPOINT).read_bytes()[:1000])
    with pytest.raises(ValueError, match=str(damaged)):
        read_checkpoint(damaged)
    torch.save({"format": 99}, damaged)
    with pytest.raises(ValueError, match="format"):
        read_checkpoint(damaged)
