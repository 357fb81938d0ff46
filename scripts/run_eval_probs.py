"""Evaluate trained experiments by retrieving the segments of speech that were heard.

Usage: python -m scripts.run_eval_probs WHICH [out=FOLDER]

WHICH is one of
  sigs=[SIG,...]      experiments by their Dora signatures
  grid_name=NAME      all experiments of bm/grids, such as nmi.main_table
  checkpoint=PATH     a checkpoint.th, or the folder that holds one

Writes acc.csv (segment accuracies with their chance levels), metadata.csv (the rank of the truth
for each test segment) and report.html into the folder "evaluation" of each experiment, or into
FOLDER (FOLDER/SIG if there are several).

For example:
  python -m scripts.run_eval_probs 'sigs=[557f5f8a]'
  python -m scripts.run_eval_probs grid_name=nmi.main_table out=results/main_table
  python -m scripts.run_eval_probs checkpoint=outputs/xps/557f5f8a out=results

Exit code: 0 if all went well, 1 if an experiment could not be evaluated, 2 for a wrong argument.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bm import play
from bm.core.messages import did_you_mean
from bm.solver import Solver
from scripts.evaluate import evaluate_solver
from scripts.experiments import find_grid
from scripts.options import UsageError

logger = logging.getLogger(__name__)

WAYS = ("sigs", "grid_name", "checkpoint")


@dataclass(frozen=True)
class Options:
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
    checkpoint: str | None = None
    out: Path | None = None


def main(arguments: Sequence[str]) -> int:
    """Evaluate what the arguments name; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    if not arguments or {"-h", "--help", "help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    try:
        options = read_options(arguments)
        jobs = find_jobs(options)
    except UsageError as error:
        print(f"{error}\nFor help: python -m scripts.run_eval_probs --help", file=sys.stderr)
        return 2
    failed = []
    for name, load in jobs:
        out = options.out / name if options.out is not None and len(jobs) > 1 else options.out
        try:
            evaluation = evaluate_solver(load(), out)
        except Exception as error:  # whatever it is, it must not stop the others
            failed.append(name)
            is_ours = isinstance(error, ValueError | OSError)
            logger.error("%s: %s", name, error, exc_info=not is_ours)
            continue
        for line in evaluation.lines():
            print(f"{name}: {line}")
        print(f"{name}: report {evaluation.report}", flush=True)
    if failed:
        print(f"{len(failed)} of {len(jobs)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def read_options(arguments: Sequence[str]) -> Options:
    """Read ``key=value`` arguments.

    Values stay text: YAML would take the signature 1234e567 for a number.

    Raises
    ------
    UsageError : an unknown or repeated key, no value, or not exactly one way to name experiments.
    """
    values: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in Options.__dataclass_fields__:
            raise UsageError(
                f"Unknown option {key!r}. {did_you_mean(key, Options.__dataclass_fields__)}"
            )
        if not equals or not value.strip():
            raise UsageError(f"Option {key} needs a value: {key}=...")
        if key in values:
            raise UsageError(f"Option {key} is given twice.")
        values[key] = value.strip()
    if len(values.keys() & set(WAYS)) != 1:
        raise UsageError(f"Give exactly one of {', '.join(f'{way}=' for way in WAYS)}.")
    options: dict[str, Any] = dict(values)
    if "sigs" in values:
        names = [name.strip(" '\"") for name in values["sigs"].strip("[]").split(",")]
        options["sigs"] = list(dict.fromkeys(filter(None, names)))
        if not options["sigs"]:
            raise UsageError("Option sigs is empty: sigs=[SIG,...]")
    if "out" in values:
        options["out"] = Path(values["out"]).expanduser()
    return Options(**options)


def find_jobs(options: Options) -> list[tuple[str, Callable[[], Solver]]]:
    """Name and loader of each experiment that is asked for."""
    if options.checkpoint is not None:
        path = Path(options.checkpoint).expanduser().absolute()
        name = path.name if path.is_dir() else path.parent.name
        return [(name, lambda: play.get_solver_from_checkpoint(path))]
    sigs = options.sigs or find_grid(str(options.grid_name)).signatures
    return [(sig, lambda sig=sig: play.get_solver_from_sig(sig)) for sig in sigs]  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
