"""Controls of a trained experiment: what it finds where it can't know the answer.

Usage: python -m scripts.controls sig=SIG [OPTION=VALUE ...]

  out=FOLDER        where to write (the folder "evaluation" of the experiment)
  n_segments=N      test segments asked for at each lag (1000)
  reach=SECONDS     largest lag, either way (2)
  step=SECONDS      from lag to lag (0.25)

Nothing is trained again. The signal of each test segment is replaced by noise of the same spectrum,
by that of another segment (shuffled pairs), by the same subject's signal in silence (noise floor),
or by a signal from earlier or later (accuracy against lag); and segments that are mostly silent are
removed. docs/evaluation.md says what to expect.

Writes controls.csv and lags.csv, and report.html with both.

For example:
  python -m scripts.controls sig=557f5f8a reach=1

Exit code: 0 if all is as expected, 1 if a control is above chance or can't be run, 2 for a wrong
argument.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bm import play
from bm.core.cache import write_atomically
from bm.core.messages import DataError
from bm.evaluation import Retrieval, retrieve
from bm.evaluation import controls as control
from bm.evaluation.controls import AS_REAL, AT_CHANCE, REAL, Outcome
from bm.metrics import chance
from bm.segments import SegmentDataset
from bm.solver import Solver
from scripts.command import command
from scripts.evaluate import CONTROLS_TABLE, FOLDER, LAGS_TABLE, evaluate_solver
from scripts.options import UsageError, read_own


@dataclass(frozen=True)
class Options:
    """What the command line asks for (see above)."""

    sig: str = ""
    out: Path | None = None
    n_segments: int = 1000
    reach: float = 2.0
    step: float = 0.25


@command(__doc__)
def main(arguments: Sequence[str]) -> int:
    """Run the controls of an experiment; returns the exit code."""
    options = read_own(Options, arguments)
    if not options.sig:
        raise UsageError("Say which experiment is meant: sig=SIG")
    solver = play.get_solver_from_sig(options.sig)
    outcomes = run_controls(solver, options)
    print(control.outcome_table(outcomes).to_string(index=False, float_format="{:.4f}".format))
    suspicious = [one.name for one in outcomes if one.is_suspicious]
    if suspicious:
        print(f"Above chance, so something leaks: {', '.join(suspicious)}", file=sys.stderr)
    return int(bool(suspicious))


def run_controls(solver: Solver, options: Options) -> list[Outcome]:
    """Controls of a trained solver; writes tables and the report."""
    out = options.out or (solver.folder or Path()) / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    outcomes = compare_controls(solver)
    lags = accuracy_by_lag(solver, options.n_segments, options.reach, options.step)
    for name, table in ((CONTROLS_TABLE, control.outcome_table(outcomes)), (LAGS_TABLE, lags)):
        dated = table.assign(epoch=solver.best_epoch)
        write_atomically(out / name, partial(dated.to_csv, index=False))
    evaluate_solver(solver, out)
    return outcomes


def compare_controls(solver: Solver) -> list[Outcome]:
    """The real accuracy, and that of each control."""
    dataset, prepared = solver.splits.datasets["test"], solver.splits.prepared
    seed = solver.training.seed
    real = solver.retrieve()
    if not real.ks:
        raise DataError(f"Only {real.n_candidates} candidates: too few for any accuracy.")
    k = real.ks[-1]
    sources = {
        "noise of the same spectrum": control.noise(dataset, prepared, seed),
        "shuffled pairs": control.shuffled(dataset, seed),
        "noise floor (silence)": control.silence(dataset, prepared, seed),
    }
    found = [control.outcome(REAL, AS_REAL, real, k)]
    for name, source in sources.items():
        if source is None:
            logging.getLogger(__name__).warning("%s: no silence as long as a segment.", name)
            continue
        found.append(control.outcome(name, AT_CHANCE, retrieve_from(solver, dataset, source), k))
    speech = control.without_silence(dataset)
    if len(speech):
        retrieval = retrieve_from(solver, speech, speech)
        name = "silent segments removed"
        found += [control.outcome(name, AS_REAL, retrieval, k)] if k in retrieval.ks else []
    return found


def accuracy_by_lag(solver: Solver, n_segments: int, reach: float, step: float) -> pd.DataFrame:
    """Top-k accuracy of some test segments with signals from earlier and later."""
    splits = solver.splits
    dataset = control.some_segments(splits.datasets["test"], n_segments, solver.training.seed)
    lengths = [item.signal.n_samples for item in splits.prepared]
    n_steps = round(reach / step)
    rows = []
    for lag in step * np.arange(-n_steps, n_steps + 1):
        n_samples = round(lag * solver.training.sample_rate)
        retrieval = retrieve_from(solver, dataset, control.shifted(dataset, lengths, n_samples))
        k = retrieval.ks[-1]
        guessing = chance(k, retrieval.n_candidates)
        rows.append({"lag": lag, "k": k, "accuracy": retrieval.accuracy(k), "chance": guessing})
    return pd.DataFrame(rows)


@torch.no_grad()
def retrieve_from(solver: Solver, dataset: SegmentDataset, source: SegmentDataset) -> Retrieval:
    """Retrieve segments with the best weights, their signals taken from `source`."""
    with solver.best():
        heard = control.heard_with(solver.queries(dataset).in_order(), source)
        return retrieve(
            dataset,
            heard,
            solver.estimate,
            solver.target,
            similarity=solver.objective.similarity,
            dtype=solver.training.dtype,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
