"""Prepare recordings ahead of training: download what is missing, and fill the cache.

Usage: python -m scripts.prepare 'selections=[NAME,...]' [OPTION=VALUE ...]

Signals, events and features go into the cache. A recording that can't be used is named with its
reason, and the others go on. What is in the cache is not made again: after a fault was mended, the
same command does the rest.

Options:
  n_processes=N     recordings prepared at a time on this machine (1)
  out=FOLDER        for prepared.csv and the logs of SLURM (outputs/prepare)
  KEY=VALUE         any key of the configuration, such as cache, dset.features, dset.sample_rate

On a SLURM cluster, as a job array:
  slurm=true        use the cluster, and wait for it; tasks go on if the waiting is interrupted
  group=N           recordings in each task, one after the other (1)
  at_once=N         tasks that run at a time, at most (32)
  partition=NAME    where (the cluster's default)
  hours=N, cpus=N, gpus=N, mem_gb=N   for each task (12, 2, 0, 16)

For example:
  python -m scripts.prepare 'selections=[gwilliams2022]' n_processes=4
  python -m scripts.prepare 'selections=[audio_mous]' slurm=true group=4 partition=gpu gpus=1
  python -m scripts.prepare 'selections=[fake]' 'dset.features=[MelSpectrum]' dset.sample_rate=60

Exit code: 0 if all recordings can be used, 1 if some can't, 2 for a wrong argument.
"""

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import submitit
import torch

from bm.config import Config
from bm.core.messages import DataError
from bm.core.progress import progress
from bm.preparation import Outcome, Preparer, download_studies, prepare_recordings, summary
from scripts.options import UsageError, compose, read_options

TABLE = "prepared.csv"
LOGS = "slurm"
POLL = 5.0
"""Seconds between looks at the cluster."""
ONLY_SLURM = ("group", "at_once", "partition", "hours", "cpus", "gpus", "mem_gb")


@dataclass(frozen=True)
class Options:
    """What the command line asks for (see above)."""

    selections: list[str] = field(default_factory=list)
    n_processes: int = 1
    out: Path = Path("outputs/prepare")
    slurm: bool = False
    group: int = 1
    at_once: int = 32
    partition: str | None = None
    hours: float = 12.0
    cpus: int = 2
    gpus: int = 0
    mem_gb: float = 16.0


def main(arguments: Sequence[str]) -> int:
    """Prepare what the arguments name; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    try:
        options, overrides = read_options(Options, arguments)
        _check(options)
        config = compose(options.selections, overrides)
        download_studies(config)
        outcomes = prepare(options, config)
    except (DataError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except ValueError as error:
        print(f"{error}\nFor help: python -m scripts.prepare --help", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(outcome) for outcome in outcomes])
    table.round(1).to_csv(options.out / TABLE, index=False)
    print(f"{summary(outcomes)}\nTable: {options.out / TABLE}")
    return int(any(outcome.reason for outcome in outcomes))


def prepare(options: Options, config: Config) -> list[Outcome]:
    """Prepare all recordings, here or on the cluster; outcomes are in the order of recordings.

    Raises
    ------
    DataError : there is no recording.
    """
    if not options.slurm and options.n_processes == 1:
        return prepare_recordings(config)
    names = [str(recording) for recording in Preparer(config).recordings]  # tells faults early
    if not names:
        raise DataError("The selection has no recordings (is its path right?).")
    if options.slurm:
        done = prepare_with(make_executor(options), config, names, options.group)
    else:
        done = prepare_in_processes(config, names, options.n_processes)
    found = dict(progress(done, "prepared", "recording", len(names)))
    return [found[index] for index in range(len(names))]


def prepare_in_processes(
    config: Config, names: Sequence[str], n_processes: int
) -> Iterator[tuple[int, Outcome]]:
    """Prepare recordings in several processes; yields number and outcome as each is done."""
    os.environ["TQDM_DISABLE"] = "1"  # of the processes: one bar is enough
    context = multiprocessing.get_context("spawn")
    n_threads = max(1, torch.get_num_threads() // n_processes)
    with ProcessPoolExecutor(n_processes, context, _begin, (config, n_threads)) as pool:
        futures = {pool.submit(_prepare_one, index): index for index in range(len(names))}
        for future in as_completed(futures):
            index = futures[future]
            try:
                yield index, future.result()
            except Exception as error:  # whatever it is, it must not stop the others
                yield index, Outcome(names[index], 0.0, f"{type(error).__name__}: {error}")


def prepare_with(
    executor: submitit.Executor,
    config: Config,
    names: Sequence[str],
    group: int = 1,
    poll: float = POLL,
) -> Iterator[tuple[int, Outcome]]:
    """Prepare groups of recordings as tasks of a job array; yields number and outcome.

    Parameters
    ----------
    executor : of submitit.
    config, names : what to prepare, and how the recordings are called.
    group : recordings in each task.
    poll : seconds between looks at the tasks.
    """
    groups = [range(len(names))[first : first + group] for first in range(0, len(names), group)]
    jobs = executor.map_array(prepare_recordings, [config] * len(groups), groups)
    indices = dict(zip([job.job_id for job in jobs], groups, strict=True))
    try:
        for job in submitit.helpers.as_completed(jobs, poll_frequency=poll):
            done = indices[job.job_id]
            yield from zip(done, _outcomes(job, [names[index] for index in done]), strict=True)
    except KeyboardInterrupt:
        array = jobs[0].job_id.split("_")[0]
        print(f"\nTasks go on without this process; to stop them: scancel {array}", file=sys.stderr)
        raise


def make_executor(options: Options) -> submitit.Executor:
    """Executor that submits to SLURM.

    Raises
    ------
    UsageError : there is no SLURM here.
    """
    try:
        executor = submitit.AutoExecutor(options.out / LOGS, cluster="slurm")
    except RuntimeError as error:
        raise UsageError(
            f"slurm=true, but SLURM can't be reached from here ({error}). Without it, the "
            "recordings are prepared on this machine: n_processes=N"
        ) from error
    executor.update_parameters(
        name="bm-prepare",
        timeout_min=round(60 * options.hours),
        cpus_per_task=options.cpus,
        mem_gb=options.mem_gb,
        slurm_array_parallelism=options.at_once,
        **({"gpus_per_node": options.gpus} if options.gpus else {}),
        **({"slurm_partition": options.partition} if options.partition else {}),
    )
    return executor


def _check(options: Options) -> None:
    for name in ("n_processes", "group", "at_once", "cpus", "hours", "mem_gb"):
        if not getattr(options, name) > 0:
            raise UsageError(f"{name}={getattr(options, name)}: must be more than 0.")
    changed = [n for n in ONLY_SLURM if getattr(options, n) != getattr(Options, n)]
    if changed and not options.slurm:
        raise UsageError(f"{changed[0]}= is for a cluster only: add slurm=true, or leave it out.")
    if options.slurm and options.n_processes != 1:
        raise UsageError("n_processes= is for this machine; on a cluster choose at_once=.")


def _outcomes(job: Any, names: Sequence[str]) -> list[Outcome]:
    """What a task found; if it was lost, all of its recordings failed for the same reason."""
    try:
        outcomes: list[Outcome] = job.result()
    except Exception as error:  # whatever it is, it must not stop the others
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"the task failed: {lines[-1] if lines else type(error).__name__}"
        return [Outcome(name, 0.0, f"{reason} (log: {job.paths.stderr})") for name in names]
    return outcomes


_preparer: Preparer


def _begin(config: Config, n_threads: int) -> None:
    """Begin a process: recordings are listed, and models loaded, once for all that it prepares."""
    global _preparer
    torch.set_num_threads(n_threads)
    _preparer = Preparer(config)


def _prepare_one(index: int) -> Outcome:
    return _preparer.prepare(index)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
