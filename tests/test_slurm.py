"""A real SLURM cluster: jobs of a grid fail, are cancelled and preempted; evaluation, notebooks."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from notebooks import NOTEBOOKS, execute_on, running_kernel

from bm.checkpoint import CHECKPOINT, DONE
from bm.grids import demo
from scripts.experiments import find_grid

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]

FLAGS = ["--no_git_save", "--no_monitoring", "-g", "2"]


@pytest.fixture
def env(python_env):
    return {**python_env, "BM_SLURM": "sandbox"}


@pytest.fixture
def dora(tmp_path, env):
    """`dora grid demo`; returns what it prints."""
    place = tmp_path / "grid"
    place.mkdir()
    (place / "cache").symlink_to(tmp_path)

    def grid(*arguments):
        command = [sys.executable, "-m", "dora", "-P", "bm", "grid", *FLAGS, "demo", *arguments]
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return grid


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true; returns it."""
    began = time.monotonic()
    while not (answer := condition()):
        assert time.monotonic() - began < 300, f"waited in vain until {what}"
        time.sleep(0.2)
    return answer


def state(job: str) -> str:
    """State of the last line that the accounting has of a job."""
    command = ["sacct", "-X", "-n", "-P", "-D", "-j", job, "-o", "State"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return printed.split("\n")[-2] if printed.strip() else ""


def in_queue(job: str) -> bool:
    """Whether a job waits or runs."""
    listed = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True)
    return bool(listed.stdout.strip())


def preempt(job: str) -> bool:
    """Send the processes the signal that SLURM sends before it takes their node away.

    False if the job has ended.
    """
    squeue = ["squeue", "-h", "-j", job, "-o", "%A"]
    number = subprocess.run(squeue, capture_output=True, text=True).stdout.strip()
    return not subprocess.run(["scancel", "--signal=USR2", f"{number}.0"]).returncode


def test_grid_survives_failure_cancellation_and_preemption_and_is_evaluated(dora, tmp_path, env):
    signatures = find_grid("demo").signatures
    _, _, third, *_, noise, _, _ = signatures
    xps = tmp_path / "grid" / "outputs" / "xps"

    def history(sig, folder="grid"):
        path = tmp_path / folder / "outputs" / "xps" / sig / "history.json"
        return json.loads(path.read_text()) if path.exists() else []

    def job(sig):
        return json.loads((xps / sig / "job.json").read_text())["job_id"]

    def preempt_one():
        """Preempt an experiment that is still in the midst of its training."""
        early = (sig for sig in signatures[:-1] if 0 < len(history(sig)) < 3)
        return next((sig for sig in early if preempt(job(sig))), None)

    (xps / third).mkdir(parents=True)
    (xps / third / CHECKPOINT).write_bytes(b"damaged")
    dora()
    jobs = [job(sig) for sig in signatures]
    assert len({name.split("_")[0] for name in jobs[:-1]}) == 1  # one array
    dora("6", "-C")
    wait_until(lambda: not in_queue(job(noise)), "one is cancelled")
    assert not (xps / noise / DONE).exists()
    preempted = wait_until(preempt_one, "one is preempted")
    wait_until(lambda: state(job(third)) == "FAILED", "the third has failed")

    (xps / third / CHECKPOINT).unlink()
    dora("-r")
    for sig in signatures:
        wait_until((xps / sig / DONE).exists, f"{sig} is done")
    states = {sig: state(name) for sig, name in zip(signatures, jobs, strict=True)}
    assert [sig for sig in states if states[sig] == "FAILED"] == [third], states
    logs = "".join(path.read_text() for path in (xps / preempted).glob("latest/*_0_log.out"))
    assert "Resumed after epoch" in logs
    assert "2 processes: 15 negatives per estimate" in logs
    assert len(history(preempted)) == 4
    local = [sys.executable, "-m", "scripts.run_grid", "demo", "ddp=2", f"only={preempted}"]
    place = tmp_path / "without"
    place.mkdir()
    subprocess.run([*local, f"cache={tmp_path}"], cwd=place, env=env, check=True)
    assert history(preempted) == history(preempted, "without")  # nor does SLURM change it
    printed = dora()
    assert "4/4" in printed
    assert printed.count("COM") == len(signatures)

    evaluation = subprocess.run(
        [
            sys.executable, "-m", "scripts.run_eval_probs", "grid_name=demo", "distributed=true",
            "partition=cpu", "cpus=1", "mem_gb=2", "hours=1",
        ],
        cwd=tmp_path / "grid", env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert evaluation.returncode == 0, evaluation.stdout + evaluation.stderr
    assert f"0 wait, 0 run, {len(signatures)} done, 0 failed" in evaluation.stderr
    best = [epoch["test"] for epoch in history(preempted) if "test" in epoch][-1]["segment_top10"]
    assert f"{preempted}: top-10 segment accuracy {100 * best:.1f} %" in evaluation.stdout
    assert (xps / preempted / "evaluation" / "report.html").exists()

    with running_kernel(env) as kernel:
        for name in (path.stem for path in NOTEBOOKS):
            execute_on(kernel, name, "demo", tmp_path / "grid")
    table = pd.read_csv(tmp_path / "grid" / "outputs" / "tables" / "table2_main_results.csv")
    ours = table[table["study"] == "fake"].set_index("row")
    assert (ours["n_seeds"][list(demo.ROWS)] == len(demo.SEEDS)).all()
    means = ours["mean"]
    assert means["reference"] > means["no subject layer"] > means["no clamp"]
    assert (means[list(demo.CONTROLS)] < 2 * ours["chance"].iloc[0]).all()
