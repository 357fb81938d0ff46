"""A trained experiment beside what is simpler and what is best: chance, ridge regression, ceiling.

Usage: python -m scripts.baselines sig=SIG

Fits a linear backward model (ridge regression from sensors at lags of 0 to 0.4 s to the features,
for each listener, its penalty chosen on the validation split) to the same segments, and retrieves
the test segments with both. The ceiling is known for simulated studies only.

Prints the table, and writes it to baselines.csv in the folder "evaluation" of the experiment.

For example:
  python -m scripts.baselines sig=557f5f8a

Exit code: 0 if all went well, 1 if the data don't allow it, 2 for a wrong argument.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from bm import play
from bm.build import build_windows
from bm.config import from_dict
from bm.core.cache import write_atomically
from bm.evaluation import Retrieval, retrieve
from bm.evaluation.linear import BackwardModel
from bm.metrics import chance
from bm.segments import SegmentLoader
from bm.solver import Solver
from scripts.arguments import UsageError
from scripts.command import command
from scripts.evaluate import FOLDER, find_ceiling
from scripts.options import read_own

TABLE = "baselines.csv"


@dataclass(frozen=True)
class Options:
    """What the command line asks for (see above)."""

    sig: str = ""


@command(__doc__)
def main(arguments: Sequence[str]) -> int:
    """Compare an experiment with baselines; returns the exit code."""
    options = read_own(Options, arguments)
    if not options.sig:
        raise UsageError("Say which experiment is meant: sig=SIG")
    solver = play.get_solver_from_sig(options.sig)
    table = compare_baselines(solver)
    print(table.to_string(index=False, float_format="{:.3f}".format))
    folder = (solver.folder or Path()) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / TABLE, partial(table.to_csv, index=False))
    return 0


def compare_baselines(solver: Solver) -> pd.DataFrame:
    """Top-k accuracies of the ceiling, the trained decoder, ridge regression and chance."""
    trained, ridge = solver.retrieve(), retrieve_linearly(solver)
    window = build_windows(from_dict(solver.about["config"]).dset)["test"]
    ceiling = find_ceiling(solver, trained, window) or {}
    rows = [
        {"decoder": "ceiling", **{f"top-{k}": share for k, share in ceiling.items()}},
        {"decoder": "trained", **{f"top-{k}": trained.accuracy(k) for k in trained.ks}},
        {"decoder": "ridge regression", **{f"top-{k}": ridge.accuracy(k) for k in ridge.ks}},
        {"decoder": "chance", **{f"top-{k}": chance(k, trained.n_candidates) for k in trained.ks}},
    ]
    return pd.DataFrame([row for row in rows if len(row) > 1])


@torch.no_grad()
def retrieve_linearly(solver: Solver) -> Retrieval:
    """Retrieve the test segments with a backward model fitted to the same training segments."""
    data, training = solver.splits.datasets, solver.training
    model = BackwardModel(solver.scaler, training.sample_rate).fit(data["train"], data["valid"])
    batches = SegmentLoader(data["test"].without_features(), training.batch_size).in_order()
    return retrieve(data["test"], batches, model.estimate, model.target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
