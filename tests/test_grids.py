"""Grids: what they schedule, and how they are run without SLURM."""

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from dora.conf import SlurmConfig
from dora.explore import Launcher

from bm.checkpoint import CHECKPOINT, DONE
from bm.config import ConfigError, from_hydra
from bm.grids._explorers import summarise
from bm.train import main as experiment
from scripts import run_grid
from scripts.experiments import find_grid

N_EXPERIMENTS = {
    "main_table": 72, "ablation_final": 144, "fair_compare_meg_eeg": 9, "lr_batch_size": 96,
    "nmels": 144, "per_subject_gwilliams": 27, "per_subject_mous": 30, "wordlists": 3,
}  # fmt: skip


class Collector:
    """Stands in for Dora's shepherd and herd: only notes what would be scheduled."""

    _job_array_launcher = None

    def __init__(self):
        self.main = experiment
        self.argvs = []

    def add_sheep(self, shepherd, argv, slurm, pool):
        self.argvs.append((tuple(argv), slurm.gpus))


@pytest.fixture(scope="module", params=N_EXPERIMENTS)
def grid(request):
    module = importlib.import_module(f"bm.grids.nmi.{request.param}")
    herd = Collector()
    module.explorer(Launcher(herd, SlurmConfig(), herd))
    return SimpleNamespace(name=request.param, doc=module.__doc__, argvs=herd.argvs)


def test_published_grid_is_complete_and_says_what_it_costs(grid):
    assert len(set(grid.argvs)) == N_EXPERIMENTS[grid.name]
    assert f"dora grid nmi.{grid.name}" in " ".join(grid.doc.split())
    assert f"scripts.run_grid nmi.{grid.name}" in " ".join(grid.doc.split())
    assert f"{N_EXPERIMENTS[grid.name]} experiments" in " ".join(grid.doc.split())
    assert "Expected" in grid.doc


def test_every_kind_of_published_experiment_is_valid(grid):
    last = {len(argv): argv for argv, _ in grid.argvs}
    for argv in last.values():
        from_hydra(experiment.get_xp(argv).cfg)
    assert {n_gpus for _, n_gpus in grid.argvs} <= {1, 2}


def test_regression_is_judged_by_an_experiment_that_starts_from_it():
    module = importlib.import_module("bm.grids.nmi.main_table")
    herd = Collector()
    module.explorer(Launcher(herd, SlurmConfig(), herd))
    argvs = [argv for argv, _ in herd.argvs]
    for parent, child in zip(argvs[4:12:6], argvs[5:12:6], strict=True):
        assert 'optim.loss="mse"' in parent
        assert f'continue_sig="{experiment.get_xp(parent).sig}"' in child
        assert "optim.lr=0" in child
        assert not any("loss" in part for part in child)


def test_table_shows_latest_and_best():
    history = [
        {"train": {"loss": 3.0}, "valid": {"loss": 2.0}, "test": {"segment_top10": 0.3}},
        {"train": {"loss": 2.5}, "valid": {"loss": 2.5}},
    ]
    assert summarise(history, 5) == {
        "train": {"epoch": "2/5", "loss": 2.5},
        "valid": {"loss": 2.5, "best": 2.0},
        "test": {"segment_top10": 0.3},
    }
    assert summarise([], 5)["valid"] == {}


def test_cluster_is_chosen_by_a_file_and_no_partition_is_built_in(tmp_path, monkeypatch):
    monkeypatch.delenv("BM_SLURM", raising=False)
    assert experiment.get_slurm_config().partition is None
    monkeypatch.setenv("BM_SLURM", "cpu")
    assert experiment.get_slurm_config().gpus == 0
    mine = tmp_path / "mine.yaml"
    mine.write_text("partition: big\n")
    monkeypatch.setenv("BM_SLURM", str(mine))
    assert experiment.get_slurm_config().partition == "big"
    mine.write_text("partitions: big\n")
    with pytest.raises(ConfigError, match="partitions"):
        experiment.get_slurm_config()
    monkeypatch.setenv("BM_SLURM", "nowhere")
    with pytest.raises(ConfigError, match="Known: cpu, default, sandbox"):
        experiment.get_slurm_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demoo"], "Did you mean 'demo'"),
        (["demo", "jobs"], "needs a value"),
        (["demo", "jobs=two"], "should be a whole number"),
        (["demo", "gpus=0,1", "ddp=2", "jobs=2"], "need 4 GPUs"),
        (["demo", "optim.lr=1"], "would make other experiments"),
        (["demo", "only=deadbeef"], "Not in demo: deadbeef"),
        (["demo", "retries=-1"], "retries at least 0"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(arguments, message, capsys):
    assert run_grid.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_gpus_are_handed_out_and_come_back(tmp_path, monkeypatch):
    seen, threads = [], []

    class Process:
        def __init__(self, command, env, **options):
            seen.append(env["CUDA_VISIBLE_DEVICES"])
            threads.append(env["OMP_NUM_THREADS"])

        def poll(self):
            return 1

    monkeypatch.setattr(run_grid.subprocess, "Popen", Process)
    monkeypatch.setattr(run_grid, "POLL", 0.0)
    monkeypatch.setattr(run_grid, "n_cores", lambda: 13)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    options, _ = run_grid.read(["gpus=0,1,2,3", "ddp=2", "retries=0"])
    xps = [SimpleNamespace(sig=str(n), folder=tmp_path, argv=[]) for n in range(3)]
    tasks = [run_grid.Task(xp, [], None) for xp in xps]
    (tmp_path / run_grid.LOG).touch()
    run_grid.run(tasks, options)
    assert sorted(seen) == ["0,1", "0,1", "2,3"] or sorted(seen) == ["0,1", "2,3", "2,3"]
    assert [task.state for task in tasks] == ["FAILED"] * 3
    assert threads == ["3"] * 3  # two experiments of two processes


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:unclosed file .*(argv|history).json:ResourceWarning")  # Dora's
def test_grid_runs_without_slurm_stops_goes_on_and_does_nothing_twice(
    tmp_path, python_env, monkeypatch, capsys, caplog
):
    first, *_, child = find_grid("demo").signatures
    for name, value in {**python_env, "PATH": str(tmp_path)}.items():  # no sbatch, no sinfo
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment.dora, "dir", tmp_path / "outputs")
    caplog.set_level(logging.INFO)
    xps = tmp_path / "outputs" / "xps"
    arguments = ["demo", f"only={first},{child}"]

    (xps / first).mkdir(parents=True)
    (xps / first / CHECKPOINT).write_bytes(b"damaged")
    assert run_grid.main([*arguments, "retries=0"]) == 1
    printed = capsys.readouterr().err
    assert f"{first}: FAILED" in printed
    assert f"{child}: BLOCKED" in printed
    assert "can't be read as a checkpoint" in caplog.text
    (xps / first / CHECKPOINT).unlink()

    command = [sys.executable, "-m", "scripts.run_grid", *arguments, "jobs=2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as stopped:
        while not (xps / first / "history.json").exists():
            assert stopped.poll() is None
            time.sleep(0.1)
        os.kill(stopped.pid, signal.SIGINT)
    assert stopped.returncode == 130
    assert not (xps / child / CHECKPOINT).exists()  # waited for its parent

    caplog.clear()
    assert run_grid.main([*arguments, "jobs=2"]) == 0
    assert "started" in caplog.text
    assert "Resumed after epoch" in (xps / first / run_grid.LOG).read_text()
    assert len(json.loads((xps / first / "history.json").read_text())) == 4
    assert "Weights taken from" in (xps / child / run_grid.LOG).read_text()
    for sig in (first, child):
        assert (xps / sig / DONE).exists()
        link = tmp_path / "outputs" / "grids" / "demo" / sig
        assert link.resolve() == (xps / sig).resolve()

    caplog.clear()
    assert run_grid.main(arguments) == 0
    assert "started" not in caplog.text
