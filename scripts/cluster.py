"""Work divided over a SLURM cluster as a job array, through submitit.

Enters: a function and the arguments of each task. Leaves: what each task gave, or why it failed,
and meanwhile how many wait, run, are done and have failed.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from scripts.options import UsageError

POLL = 5.0
"""Seconds between looks at the cluster."""
ONLY_HERE = ("at_once", "partition", "hours", "cpus", "gpus", "mem_gb")
WAITING = ("PENDING", "REQUEUED", "UNKNOWN", "CONFIGURING")


@dataclass(frozen=True)
class ClusterOptions:
    """What is asked of the cluster; scripts inherit their own options from it.

    Attributes
    ----------
    distributed : use the cluster.
    at_once : tasks that run at a time, at most.
    partition : where; None: the cluster's default.
    hours, cpus, gpus, mem_gb : of each task.
    """

    distributed: bool = False
    at_once: int = 32
    partition: str | None = None
    hours: float = 12.0
    cpus: int = 2
    gpus: int = 0
    mem_gb: float = 16.0

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises
        ------
        UsageError : one does.
        """
        for name in ("at_once", "cpus", "hours", "mem_gb"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}={getattr(self, name)}: must be more than 0.")
        defaults = ClusterOptions()
        changed = [n for n in ONLY_HERE if getattr(self, n) != getattr(defaults, n)]
        if changed and not self.distributed:
            raise UsageError(
                f"{changed[0]}= is for a cluster only: add distributed=true, or leave it out."
            )


@dataclass(frozen=True)
class Outcome:
    """What became of a task: `value`, or the `reason` why there is none."""

    value: Any = None
    reason: str = ""


def make_executor(options: ClusterOptions, name: str, logs: Path) -> submitit.Executor:
    """Executor that submits to SLURM.

    Raises
    ------
    UsageError : there is no SLURM here.
    """
    try:
        executor = submitit.AutoExecutor(logs, cluster="slurm")
    except RuntimeError as error:
        raise UsageError(
            f"distributed=true, but SLURM can't be reached from here ({error}). Leave it out to "
            "do the work on this machine."
        ) from error
    executor.update_parameters(
        name=name,
        timeout_min=round(60 * options.hours),
        cpus_per_task=options.cpus,
        mem_gb=options.mem_gb,
        slurm_array_parallelism=options.at_once,
        **({"gpus_per_node": options.gpus} if options.gpus else {}),
        **({"slurm_partition": options.partition} if options.partition else {}),
    )
    return executor


def run_array(
    executor: submitit.Executor,
    function: Callable[..., Any],
    *arguments: Sequence[Any],
    poll: float = POLL,
) -> Iterator[tuple[int, Outcome]]:
    """Run a function on the cluster; yields number and outcome of each task as it ends.

    Parameters
    ----------
    executor : of submitit.
    function, arguments : as in `map`.
    poll : seconds between looks at the tasks.
    """
    jobs = executor.map_array(function, *arguments)
    left, n_failed, said = dict(enumerate(jobs)), 0, ""
    try:
        while left:
            for index in [index for index, job in left.items() if job.done()]:
                outcome = _outcome(left.pop(index))
                n_failed += bool(outcome.reason)
                yield index, outcome
            states = Counter(job.state in WAITING for job in left.values())
            n_done = len(jobs) - len(left) - n_failed
            line = f"{states[True]} wait, {states[False]} run, {n_done} done, {n_failed} failed"
            if line != said:
                print(line, file=sys.stderr, flush=True)
                said = line
            if left:
                time.sleep(poll)
    except KeyboardInterrupt:
        array = jobs[0].job_id.split("_")[0]
        print(f"\nTasks go on without this process; to stop them: scancel {array}", file=sys.stderr)
        raise


def _outcome(job: Any) -> Outcome:
    """What a task gave; if it was lost, the last line that says why, and where its log is."""
    try:
        return Outcome(job.result())
    except Exception as error:  # whatever it is, it must not stop the others
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[-1] if lines else type(error).__name__
        return Outcome(reason=f"{said} (log: {job.paths.stderr})")
