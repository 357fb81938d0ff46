"""Run a grid on this machine, without SLURM: the same experiments, signatures and folders.

Usage: python -m scripts.run_grid NAME [OPTION=VALUE ...]

Options:
  jobs=N            experiments at a time (one per GPU that is named, else 1)
  gpus=0,1,...      GPUs to use; each experiment gets its own
  ddp=N             processes, and GPUs if there are any, for each experiment (1)
  retries=N         how often an experiment that failed is started again (1)
  only=SIG,...      these experiments only
  KEY=VALUE         keys that don't change a signature, such as device, cache, num_workers

What is done is not done again, and what was interrupted goes on where it stopped: after Ctrl-C, a
crash or a repaired fault, give the same command. An experiment that starts from another (its
continue_sig) waits for that one. The output of each goes to run.log in its folder; TensorBoard,
HiPlot and `python -m scripts.run_eval_probs grid_name=NAME` find the experiments as after
`dora grid`.

For example:
  python -m scripts.run_grid demo jobs=2
  python -m scripts.run_grid nmi.main_table gpus=0,1,2,3 ddp=2 cache=/data/cache

Exit code: 0 if all are done, 1 if some failed, 2 for a wrong argument.
"""

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dora
import treetable
from dora.shep import Sheep

from bm.checkpoint import DONE
from bm.core.machine import n_cores
from bm.train import WHERE
from bm.train import main as experiment
from scripts.command import command
from scripts.experiments import Grid, find_grid
from scripts.options import UsageError, divide

logger = logging.getLogger(__name__)

LOG = "run.log"
ERROR = re.compile(r"[\w.]+(Error|Exception)\b")
POLL = 0.5
"""Seconds between looks at the experiments."""
STOPPING = 20.0
"""Seconds that experiments have to end when they are told to."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for (see above)."""

    jobs: int = 0
    gpus: list[str] = field(default_factory=list)
    ddp: int = 1
    retries: int = 1
    only: list[str] = field(default_factory=list)

    @property
    def n_at_once(self) -> int:
        """Experiments at a time."""
        return self.jobs or max(1, len(self.gpus) // self.ddp)

    def check(self) -> None:
        """Make sure that numbers make sense.

        Raises
        ------
        UsageError : they don't.
        """
        if self.ddp < 1 or self.retries < 0 or self.jobs < 0:
            raise UsageError("jobs and ddp must be at least 1, and retries at least 0.")
        if self.gpus and self.n_at_once * self.ddp > len(self.gpus):
            raise UsageError(
                f"jobs={self.n_at_once} with ddp={self.ddp} need "
                f"{self.n_at_once * self.ddp} GPUs, but gpus= names {len(self.gpus)}."
            )


@dataclass
class Task:
    """One experiment on its way.

    Attributes
    ----------
    xp : the experiment.
    arguments : of ``dora run``.
    parent : signature of the experiment that it starts from; None: none.
    state : WAITING, RUNNING, DONE, FAILED, or BLOCKED: its parent failed.
    n_starts : how often it was started.
    process, gpus : while it runs.
    """

    xp: dora.XP
    arguments: list[str]
    parent: str | None
    state: str = "WAITING"
    n_starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    gpus: tuple[str, ...] = ()

    @property
    def is_over(self) -> bool:
        """Nothing more will become of it."""
        return self.state in ("DONE", "FAILED", "BLOCKED")


@command(__doc__, logging.INFO, log_format="%(asctime)s %(message)s")
def main(arguments: Sequence[str]) -> int:
    """Run what the arguments name; returns the exit code."""
    options, overrides = read(arguments[1:])
    grid = find_grid(arguments[0])
    tasks = make_tasks(grid, options, overrides)
    link(grid)
    try:
        run(tasks, options)
    finally:
        print(table(grid, tasks))
    failed = [task for task in tasks if task.state != "DONE"]
    for task in failed:
        print(f"{task.xp.sig}: {task.state}, see {task.xp.folder / LOG}", file=sys.stderr)
    return 1 if failed else 0


def read(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Divide arguments into options and overrides of the configuration.

    Raises
    ------
    UsageError : a value is missing or isn't what it should be.
    """
    values, overrides = divide(Options, arguments)
    options = Options(**values)
    options.check()
    return options, overrides


def make_tasks(grid: Grid, options: Options, overrides: Sequence[str]) -> list[Task]:
    """Experiments of the grid that are asked for, in its order.

    Raises
    ------
    UsageError : an override changes the signature, or a signature isn't in the grid.
    """
    unknown = set(options.only) - set(grid.signatures)
    if unknown:
        raise UsageError(f"Not in {grid.name}: {', '.join(sorted(unknown))}.")
    tasks = []
    for xp in grid.experiments:
        if options.only and xp.sig not in options.only:
            continue
        arguments = [*xp.argv, *overrides]
        if experiment.get_xp(arguments).sig != xp.sig:
            raise UsageError(
                f"{' '.join(overrides)} would make other experiments of the grid's. Allowed are "
                f"{', '.join(xp.dora.exclude)}."
            )
        task = Task(xp, arguments, xp.cfg.continue_sig)
        if (xp.folder / DONE).exists():
            task.state = "DONE"
        tasks.append(task)
    return tasks


def link(grid: Grid) -> None:
    """Make the experiments known by their signatures, and by the grid's name, as Dora does."""
    folder = Path(experiment.dora.dir) / "grids" / grid.name
    folder.mkdir(parents=True, exist_ok=True)
    for xp in grid.experiments:
        experiment.init_xp(xp)
        if not (folder / xp.sig).is_symlink():
            (folder / xp.sig).symlink_to(xp.folder)


def run(tasks: Sequence[Task], options: Options) -> None:
    """Run tasks until all are over; if interrupted, end them."""
    free = list(options.gpus)
    try:
        while not all(task.is_over for task in tasks):
            for task in tasks:
                if task.state == "RUNNING":
                    look_after(task, free, options.retries)
                elif task.state == "WAITING" and is_ready(task, tasks):
                    n_running = sum(other.state == "RUNNING" for other in tasks)
                    if n_running < options.n_at_once:
                        n_gpus = options.ddp if options.gpus else 0
                        task.gpus, free[:] = tuple(free[:n_gpus]), free[n_gpus:]
                        start(task, options)
            time.sleep(POLL)
    finally:
        stop([task.process for task in tasks if task.process is not None])


def is_ready(task: Task, tasks: Sequence[Task]) -> bool:
    """Whether a task can start: what it starts from, if anything, is done."""
    parent = next((other for other in tasks if other.xp.sig == task.parent), None)
    if parent is None or parent.state == "DONE":
        return True
    if parent.is_over:
        task.state = "BLOCKED"
    return False


def start(task: Task, options: Options) -> None:
    """Start a task as a process of its own, its output going to its folder."""
    several = ["-d", f"--ddp_workers={options.ddp}"] if options.ddp > 1 else []
    command = [sys.executable, "-m", "dora", "-P", "bm", "run", *several, "--", *task.arguments]
    n_threads = max(1, n_cores() // (options.n_at_once * options.ddp))
    # Threads that wait should sleep: those of other experiments need the cores.
    env = {"OMP_NUM_THREADS": str(n_threads), "OMP_WAIT_POLICY": "passive", **os.environ}
    if task.gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(task.gpus)
    with open(task.xp.folder / LOG, "ab") as log:
        task.process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    task.state = "RUNNING"
    task.n_starts += 1
    logger.info("%s started%s: %s", task.xp.sig, _on(task), " ".join(task.xp.argv))


def look_after(task: Task, free: list[str], retries: int) -> None:
    """Take note of a task that has ended, and give its GPUs back."""
    assert task.process is not None
    code = task.process.poll()
    if code is None:
        return
    free += task.gpus
    task.process, task.gpus = None, ()
    if code == 0 and (task.xp.folder / DONE).exists():
        task.state = "DONE"
        logger.info("%s is done.", task.xp.sig)
        return
    task.state = "FAILED" if task.n_starts > retries else "WAITING"
    again = "" if task.state == "FAILED" else ", once more"
    logger.error("%s failed (exit code %d)%s: %s", task.xp.sig, code, again, reason(task.xp))


def reason(xp: dora.XP) -> str:
    """Where an experiment's output names its last error; its last line if it names none."""
    text = (xp.folder / LOG).read_text(errors="replace").splitlines()
    lines = [line.strip() for line in text if line.strip()] or ["(no output)"]
    if lines[-1].startswith(WHERE) and len(lines) > 1:
        return lines[-2]
    errors = [line for line in lines if ERROR.match(line)]
    return (errors or lines)[-1]


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes; they go on from their checkpoints when started again."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            process.kill()


def table(grid: Grid, tasks: Sequence[Task]) -> str:
    """State, progress and accuracies of each task, in the columns of `dora grid`."""
    names, base = experiment.get_names([task.xp for task in tasks])
    lines = []
    for index, (task, name) in enumerate(zip(tasks, names, strict=True)):
        meta = {"index": index, "name": name, "state": task.state, "sig": task.xp.sig}
        history = experiment.get_xp_history(task.xp)
        lines.append({"Meta": meta, **grid.explorer.process_sheep(Sheep(task.xp), history)})
    columns = [treetable.leaf(key) for key in ("index", "name", "state", "sig")]
    groups = [treetable.group("Meta", columns), *grid.explorer.get_grid_metrics()]
    text = treetable.treetable(lines, treetable.table(groups, shorten=True))
    return f"All: {base}\n{text}" if base else str(text)


def _on(task: Task) -> str:
    return f" on GPU {','.join(task.gpus)}" if task.gpus else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
