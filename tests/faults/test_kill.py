"""Kill -9 at random points: a restart gives the same bytes, and makes nothing twice."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stages
from fault_suite import Processes, Reference, Tally
from servers import FileServer, add_osf
from stages import STAGES, finished, kept_since

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

CON = "sub-01/ses-0/meg/sub-01_ses-0_task-{}_meg.con"
TREE = {CON.format(task): bytes([task + 1]) * 700_000 for task in range(5)}
TREE |= {f"stimuli/audio/{n}.wav": b"RIFF" * 1000 for n in range(3)}


@pytest.fixture
def serving() -> Iterator[FileServer]:
    """A study on a server that takes its time."""
    server = FileServer()
    for node in ("ag3kj", "h2tzn", "u5327"):
        served = add_osf(server, node, TREE if node == "ag3kj" else {})
        for file in served.values():
            file.delay = 0.01
    yield server
    server.close()


@pytest.mark.parametrize("stage", STAGES)
def test_killed_anywhere_it_ends_with_the_same_bytes(
    stage: str,
    reference: Reference,
    processes: Processes,
    serving: FileServer,
    tally: Tally,
    often: bool,
    tmp_path: Path,
) -> None:
    chance = random.Random(f"kill {stage}")

    def begin(name: str) -> Path:
        folder = reference.begin(stage, tmp_path / name)
        (folder / stages.SERVER).write_text(serving.url)
        return folder

    folder = begin("whole")
    began = time.monotonic()
    processes.finish(stage, folder)
    took = time.monotonic() - began
    expected = finished(stage, folder)
    assert expected == reference.results.get(stage, expected)
    shutil.rmtree(folder)
    n_wanted, n_killed, wrong, lost = 32 if often else 1, 0, 0, 0
    for number in range(10 * n_wanted):
        folder = begin(str(number))
        if not kill_after(chance.uniform(0, took), processes, stage, folder):
            shutil.rmtree(folder)
            continue  # it was done before
        n_killed += 1
        there = finished(stage, folder)
        wrong += sum(expected.get(name) != piece for name, piece in there.items())
        since, n_steps = kept_since(stage, folder), len(steps(folder))
        processes.finish(stage, folder)
        wrong += finished(stage, folder) != expected
        lost += sum(kept_since(stage, folder).get(name) != when for name, when in since.items())
        if stage == "checkpointing":
            lost += steps(folder)[n_steps:] != list(range(len(there), stages.N_EPOCHS))
        shutil.rmtree(folder)
        if n_killed == n_wanted:
            break
    assert n_killed == n_wanted
    tally.add(f"kill -9 at a random point of {stage}", lost, wrong, n_killed)


def kill_after(seconds: float, processes: Processes, stage: str, folder: Path) -> bool:
    """Start a stage and kill it so many seconds later; whether it was still at work."""
    pid = processes.start(stage, folder)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return processes.wait(pid) == -signal.SIGKILL


def steps(folder: Path) -> list[int]:
    """Epochs that were begun."""
    path = folder / stages.STEPS
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize("stage", ["preprocessing", "feature extraction"])
def test_eight_cold_processes_give_one_result(
    stage: str,
    reference: Reference,
    processes: Processes,
    tally: Tally,
    often: bool,
    tmp_path: Path,
) -> None:
    for number in range(10 if often else 1):
        folder = reference.begin(stage, tmp_path / str(number))
        pids = [processes.start(stage, folder) for _ in range(8)]
        wrong = sum(processes.wait(pid) != 0 for pid in pids)
        wrong += finished(stage, folder) != reference.results[stage]
        tally.add(f"8 processes on a cold cache, {stage}", 0, wrong)


def test_lock_of_a_dead_process_holds_nobody_up(
    reference: Reference, processes: Processes, tally: Tally, often: bool, tmp_path: Path
) -> None:
    """Killed while it holds a lock: the file stays, and the next one takes it at once."""
    stage = "preprocessing"
    for number in range(30 if often else 1):
        folder = reference.begin(stage, tmp_path / str(number))
        signals = folder / "cache" / "signals"
        pid = processes.start(stage, folder)
        wait_until(lambda signals=signals: any(signals.glob(".tmp-*")))
        os.kill(pid, signal.SIGKILL)
        assert processes.wait(pid) == -signal.SIGKILL
        assert any(signals.glob(".*.lock"))
        processes.finish(stage, folder)
        wrong = finished(stage, folder) != reference.results[stage]
        tally.add("lock left by a dead process", 0, int(wrong))


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
