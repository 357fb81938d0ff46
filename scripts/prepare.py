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
  distributed=true  use the cluster, and wait for it; tasks go on if the waiting is interrupted
  group=N           recordings in each task, one after the other (1)
  at_once=N         tasks that run at a time, at most (32)
  partition=NAME    where (the cluster's default)
  hours=N, cpus=N, gpus=N, mem_gb=N   for each task (12, 2, 0, 16)

For example:
  python -m scripts.prepare 'selections=[gwilliams2022]' n_processes=4
  python -m scripts.prepare 'selections=[audio_mous]' distributed=true group=4 partition=gpu gpus=1
  python -m scripts.prepare 'selections=[fake]' 'dset.features=[MelSpectrum]' dset.sample_rate=60

Exit code: 0 if all recordings can be used, 1 if some can't, 2 for a wrong argument.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import submitit
import torch

from bm.config import Config
from bm.core.messages import DataError
from bm.core.progress import progress
from bm.preparation import Outcome, Preparer, download_studies, prepare_recordings, summary
from scripts.cluster import POLL, ClusterOptions, make_executor, run_array
from scripts.command import command
from scripts.options import UsageError, compose, read_options

TABLE = "prepared.csv"
LOGS = "slurm"


@dataclass(frozen=True)
class Options(ClusterOptions):
    """What the command line asks for (see above)."""

    selections: list[str] = field(default_factory=list)
    n_processes: int = 1
    out: Path = Path("outputs/prepare")
    group: int = 1


@command(__doc__)
def main(arguments: Sequence[str]) -> int:
    """Prepare what the arguments name; returns the exit code."""
    options, overrides = read_options(Options, arguments)
    options.check()
    _check(options)
    config = compose(options.selections, overrides)
    download_studies(config)
    outcomes = prepare(options, config)
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
    if not options.distributed and options.n_processes == 1:
        return prepare_recordings(config)
    names = [str(recording) for recording in Preparer(config).recordings]  # tells faults early
    if not names:
        raise DataError("The selection has no recordings (is its path right?).")
    if options.distributed:
        executor = make_executor(options, "bm-prepare", options.out / LOGS)
        done = prepare_with(executor, config, names, options.group)
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

    If a task is lost, all of its recordings have failed for the same reason.

    Parameters
    ----------
    executor : of submitit.
    config, names : what to prepare, and how the recordings are called.
    group : recordings in each task.
    poll : seconds between looks at the tasks.
    """
    groups = [range(len(names))[first : first + group] for first in range(0, len(names), group)]
    configs = [config] * len(groups)
    for number, task in run_array(executor, prepare_recordings, configs, groups, poll=poll):
        lost = [
            Outcome(names[index], 0.0, f"the task failed: {task.reason}")
            for index in groups[number]
        ]
        yield from zip(groups[number], lost if task.reason else task.value, strict=True)


def _check(options: Options) -> None:
    for name in ("n_processes", "group"):
        if not getattr(options, name) > 0:
            raise UsageError(f"{name}={getattr(options, name)}: must be more than 0.")
    if options.group != 1 and not options.distributed:
        raise UsageError("group= is for a cluster only: add distributed=true, or leave it out.")
    if options.distributed and options.n_processes != 1:
        raise UsageError("n_processes= is for this machine; on a cluster choose at_once=.")


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
