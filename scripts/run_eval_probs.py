"""Evaluate trained experiments by retrieving the segments of speech that were heard.

Usage: python -m scripts.run_eval_probs WHICH [OPTION=VALUE ...]

WHICH is one of
  sigs=[SIG,...]      experiments by their Dora signatures
  grid_name=NAME      all experiments of a grid in bm/grids, such as nmi.main_table, however they
                      were run
  checkpoint=PATH     a checkpoint.th, or the folder that holds one

Options:
  out=FOLDER          where to write
  distributed=true    on a SLURM cluster, as a job array, and wait for it; then also
  at_once=N, partition=NAME, hours=N, cpus=N, gpus=N, mem_gb=N   as for scripts.prepare

Writes acc.csv (single-trial segment accuracies with their chance levels), metadata.csv (the rank of
the truth for each test segment), pooled.csv (accuracies from several trials at once) and
report.html into the folder "evaluation" of each experiment, or into FOLDER (FOLDER/SIG if there are
several). At the end a table says what became of each.

For example:
  python -m scripts.run_eval_probs 'sigs=[557f5f8a]'
  python -m scripts.run_eval_probs grid_name=nmi.main_table distributed=true gpus=1
  python -m scripts.run_eval_probs checkpoint=outputs/xps/557f5f8a out=results

Exit code: 0 if all went well, 1 if an experiment could not be evaluated, 2 for a wrong argument.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import treetable

from scripts.cluster import ClusterOptions, Outcome, make_executor, run_array
from scripts.command import command
from scripts.evaluate import evaluate_checkpoint, evaluate_sig
from scripts.experiments import find_grid
from scripts.options import UsageError, divide

logger = logging.getLogger(__name__)

WAYS = ("sigs", "grid_name", "checkpoint")
LOGS = Path("outputs/evaluate")
WIDTH = 120
"""Characters of a result in the table."""
Evaluate = Callable[[], list[str]]


@dataclass(frozen=True)
class Options(ClusterOptions):
    """What the command line asks for; exactly one of the first three is set.

    Attributes
    ----------
    sigs : Dora signatures.
    grid_name : module below `bm.grids`.
    checkpoint : file, or the folder that holds ``checkpoint.th``.
    out : where to write; None: into the folder of each experiment.
    """

    sigs: list[str] = field(default_factory=list)
    grid_name: str | None = None
    checkpoint: Path | None = None
    out: Path | None = None


@command(__doc__, logging.INFO)
def main(arguments: Sequence[str]) -> int:
    """Evaluate what the arguments name; returns the exit code."""
    options = read_options(arguments)
    names, jobs = find_jobs(options)
    found = dict(run(options, jobs))
    outcomes = [found[index] for index in range(len(names))]
    for name, outcome in zip(names, outcomes, strict=True):
        for line in outcome.value or []:
            print(f"{name}: {line}")
    if len(names) > 1:
        print(table(names, outcomes))
    failed = [name for name, outcome in zip(names, outcomes, strict=True) if outcome.reason]
    if failed:
        print(f"{len(failed)} of {len(names)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def read_options(arguments: Sequence[str]) -> Options:
    """Read ``key=value`` arguments.

    Values stay text: YAML would take the signature 1234e567 for a number.

    Raises
    ------
    UsageError : an unknown or repeated key, no value, or not exactly one way to name experiments.
    """
    values, _ = divide(Options, arguments, ())
    if len(values.keys() & set(WAYS)) != 1:
        raise UsageError(f"Give exactly one of {', '.join(f'{way}=' for way in WAYS)}.")
    if values.get("sigs") == []:
        raise UsageError("Option sigs is empty: sigs=[SIG,...]")
    options = Options(**values)
    options.check()
    return options


def find_jobs(options: Options) -> tuple[list[str], list[Evaluate]]:
    """Name of each experiment that is asked for, and what evaluates it."""
    if options.checkpoint is not None:
        path = options.checkpoint.absolute()
        name = path.name if path.is_dir() else path.parent.name
        return [name], [partial(evaluate_checkpoint, path, options.out)]
    sigs = options.sigs or find_grid(str(options.grid_name)).signatures
    several = options.out is not None and len(sigs) > 1
    outs = [options.out / sig if options.out and several else options.out for sig in sigs]
    return sigs, [partial(evaluate_sig, sig, out) for sig, out in zip(sigs, outs, strict=True)]


def run(options: Options, jobs: Sequence[Evaluate]) -> Iterator[tuple[int, Outcome]]:
    """Evaluate here or on the cluster; yields number and outcome as each is done."""
    if options.distributed:
        executor = make_executor(options, "bm-evaluate", LOGS)
        yield from run_array(executor, _call, jobs)
        return
    for index, job in enumerate(jobs):
        try:
            yield index, Outcome(job())
        except Exception as error:  # whatever it is, it must not stop the others
            is_ours = isinstance(error, ValueError | OSError)
            logger.error("%s", error, exc_info=not is_ours)
            yield index, Outcome(reason=f"{type(error).__name__}: {error}")


def table(names: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    """What became of each experiment, and why not more."""
    lines = [
        {
            "sig": name,
            "state": "failed" if outcome.reason else "done",
            "result": " ".join((outcome.reason or outcome.value[-2]).split())[:WIDTH],
        }
        for name, outcome in zip(names, outcomes, strict=True)
    ]
    columns = treetable.table([treetable.leaf(key) for key in ("sig", "state", "result")])
    return str(treetable.treetable(lines, columns))


def _call(job: Evaluate) -> list[str]:
    return job()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
