"""Clocks that jump, two versions of the code on one cache, lost ranks, errors while loading."""

import itertools
import os
import random
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import stages
from fault_suite import Processes, Reference, Tally
from stages import STAGES, finished, kept_since

from bm.build import build_solver
from bm.features.mel import MelSpectrum

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

YEAR = 365 * 24 * 3600
CACHED = ("preprocessing", "feature extraction")


def test_clock_that_jumps_changes_nothing(
    reference: Reference,
    tally: Tally,
    often: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By up to a year back or forth, at each look at it; then all files are older or newer."""
    chance = random.Random("clock")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + chance.uniform(-YEAR, YEAR))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
    for number in range(5 if often else 1):
        for stage in (*CACHED, "checkpointing"):
            folder = reference.begin(stage, tmp_path / f"{number} {stage}")
            STAGES[stage](folder, stages.compose(reference.base))
            wrong = finished(stage, folder) != reference.results[stage]
            tally.add("clock that jumps", 0, int(wrong))
        for path in (folder / "cache").rglob("*"):
            moment = now() + chance.uniform(-YEAR, YEAR)
            os.utime(path, (moment, moment))
        since = {stage: kept_since(stage, folder) for stage in CACHED}
        stages.features(folder, stages.compose(reference.base))
        lost = sum(kept_since(stage, folder) != since[stage] for stage in CACHED)
        tally.add("cache with times from other years", lost)


def test_two_versions_of_the_code_share_a_cache(
    reference: Reference,
    processes: Processes,
    tally: Tally,
    often: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other version gives other features; both run at the same time, and again."""
    expected = reference.results["feature extraction"]
    compute = MelSpectrum.frames
    monkeypatch.setattr(MelSpectrum, "version", MelSpectrum.version + 1)
    monkeypatch.setattr(MelSpectrum, "frames", lambda self, sound: compute(self, sound) + 1.0)
    config = stages.compose(reference.base)
    for number in range(10 if often else 1):
        folder = reference.begin("feature extraction", tmp_path / str(number))
        pid = processes.start("feature extraction", folder)
        stages.features(folder, config)
        assert processes.wait(pid) == 0
        both = finished("feature extraction", folder)
        n_mel = sum(name.startswith("MelSpectrum") for name in expected)
        wrong = {name: both.get(name) for name in expected} != expected
        wrong |= len(both) != len(expected) + n_mel
        since = kept_since("feature extraction", folder)
        processes.finish("feature extraction", folder)
        stages.features(folder, config)
        lost = kept_since("feature extraction", folder) != since
        tally.add("two versions of the code on one cache", int(lost), int(wrong))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_rank_ends_the_others_with_a_reason(
    how: signal.Signals,
    reference: Reference,
    processes: Processes,
    tally: Tally,
    often: bool,
    tmp_path: Path,
) -> None:
    """Each process by itself, as under SLURM: nobody but the ranks could end the ranks."""
    chance = random.Random(how.name)
    n_tries = 30 if how == signal.SIGKILL else 6
    for number in range(n_tries if often else 1):
        folder = reference.begin("checkpointing", tmp_path / str(number))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        common["PATIENCE"] = "6"
        pids = [
            processes.start("distributed", folder, RANK=str(r), LOCAL_RANK=str(r), **common)
            for r in range(2)
        ]
        await_checkpoint(folder / stages.EXPERIMENT / "checkpoint.th")
        time.sleep(chance.uniform(0, 1))
        lost = chance.randrange(2)
        os.kill(pids[lost], how)
        began = time.monotonic()
        code = processes.wait(pids[1 - lost])
        took = time.monotonic() - began
        if how == signal.SIGSTOP:
            os.kill(pids[lost], signal.SIGKILL)
        processes.wait(pids[lost])
        said = (folder / f"log{1 - lost}.txt").read_text()
        wrong = code != 1 or "another one has ended, or hasn't answered" not in said or took > 60
        name = "killed" if how == signal.SIGKILL else "stopped"
        tally.add(f"rank {name}: the other ends with the reason", 0, int(wrong))


def await_checkpoint(path: Path) -> None:
    end = time.monotonic() + 100
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_error_in_a_loading_thread_ends_the_run_and_the_next_goes_on(
    reference: Reference,
    processes: Processes,
    tally: Tally,
    often: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Batches are prepared by threads, which can't be killed by themselves: one fails."""
    chance = random.Random("worker")
    for number in range(30 if often else 1):
        folder = reference.begin("checkpointing", tmp_path / str(number))
        solver = build_solver(
            stages.configured(folder, stages.compose(reference.base)), folder / "xp"
        )
        solver.training = replace(solver.training, n_workers=2)
        dataset = solver.splits.datasets["train"]
        calls, last = itertools.count(), chance.randrange(4 * stages.N_EPOCHS)
        gather = dataset.gather_stored

        def failing(rows, calls=calls, last=last, gather=gather):  # type: ignore[no-untyped-def]
            if next(calls) == last:
                raise OSError("the disk is gone")
            return gather(rows)

        others = set(threading.enumerate())
        with monkeypatch.context() as patch:
            patch.setattr(dataset, "gather_stored", failing)
            with pytest.raises(OSError, match="the disk is gone"):
                solver.run()
        new = set(threading.enumerate()) - others
        n_left = sum(thread.name.startswith("ThreadPool") for thread in new)
        processes.finish("checkpointing", folder)
        wrong = finished("checkpointing", folder) != reference.results["checkpointing"]
        tally.add("error in a thread that loads", 0, int(wrong or n_left > 0))
