"""What the experiments of a grid found: which row of its table each is, and its accuracies.

Enters: a grid, and the folders of its experiments as far as they exist. Leaves: two tables. Nothing
is trained or evaluated here, and no experiment has to be complete.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dora
import pandas as pd
from omegaconf import OmegaConf

from bm.checkpoint import CHECKPOINT, DONE
from bm.evaluation.tables import ACCURACY, EVERYONE
from bm.train import main as experiment
from scripts.evaluate import FOLDER
from scripts.experiments import Grid, find_grid

logger = logging.getLogger(__name__)

REFERENCE = "reference"
HISTORY = "history.json"
COLUMNS = ["subject", "k", "accuracy", "chance", "n_candidates"]


@dataclass(frozen=True)
class GridResults:
    """Experiments of a grid and what they found.

    Attributes
    ----------
    name : of the grid.
    experiments : by signature ``sig``: ``row`` of the grid's table, ``study`` (selections, joined
        by +), ``seed``, ``state`` ("done", "unfinished" or "missing"), ``parent`` (an experiment
        that this one only judges, or None), and a column for each key that was asked for.
    accuracies : ``sig``, ``subject`` ("all", or a name), ``k``, ``accuracy``, ``chance`` (shares),
        ``n_candidates``; only of experiments that were tested.
    """

    name: str
    experiments: pd.DataFrame
    accuracies: pd.DataFrame

    @property
    def missing(self) -> list[str]:
        """Signatures of experiments without an accuracy; a judged parent needs none."""
        tested = set(self.accuracies["sig"]) | set(self.experiments["parent"].dropna())
        return [sig for sig in self.experiments.index if sig not in tested]

    def select(self, chosen: "pd.Series[bool]") -> "GridResults":
        """Some of the experiments, by a column of truth values."""
        experiments = self.experiments[chosen]
        is_left = self.accuracies["sig"].isin(experiments.index)
        return GridResults(self.name, experiments, self.accuracies[is_left])

    def __str__(self) -> str:
        states = self.experiments["state"].value_counts()
        listed = ", ".join(f"{count} {state}" for state, count in states.items())
        return f"{self.name}: {len(self.experiments)} experiments ({listed})"


def collect(grid: Grid | str, keys: Sequence[str] = ()) -> GridResults:
    """Look at all experiments of a grid.

    Accuracies are those of ``acc.csv`` (`scripts.run_eval_probs`), which knows subjects; without
    it, or if the experiment was trained on since, those of the run's own last test.

    Parameters
    ----------
    grid : or its name.
    keys : of the configuration, such as ``optim.lr``, whose values are of interest.

    Raises
    ------
    UsageError : there is no such grid.
    ValueError : there is no such key.
    """
    grid = find_grid(grid) if isinstance(grid, str) else grid
    rows, parents = name_rows(grid.experiments, grid.rows), _judged(grid.experiments)
    lines, parts = [], []
    for xp in grid.experiments:
        folder = Path(xp.folder)
        accuracies = read_accuracies(folder)
        if accuracies is not None:
            parts.append(accuracies.assign(sig=xp.sig))
        line = {
            "sig": xp.sig,
            "row": rows[xp.sig],
            "study": study_of(xp),
            "seed": xp.cfg.seed,
            "state": _state(folder),
            "parent": parents.get(xp.sig),
        }
        lines.append({**line, **{key: _value(xp, key) for key in keys}})
    experiments = pd.DataFrame(lines).set_index("sig")
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    found = found.assign(sig=found.get("sig", pd.Series(dtype=str)))
    judged = set(experiments["parent"].loc[lambda sigs: sigs.index.isin(found["sig"])].dropna())
    kept = found[~found["sig"].isin(judged)].reset_index(drop=True)
    return GridResults(grid.name, experiments, kept[["sig", *COLUMNS]])


def read_accuracies(folder: Path) -> pd.DataFrame | None:
    """Accuracies in the folder of an experiment, see `collect`; None if it wasn't tested."""
    table, checkpoint = folder / FOLDER / ACCURACY, folder / CHECKPOINT
    if table.exists():
        if not checkpoint.exists() or checkpoint.stat().st_mtime <= table.stat().st_mtime:
            return pd.read_csv(table)[COLUMNS]
        logger.warning("%s is older than the checkpoint: not used. Evaluate it again.", table)
    if not (folder / HISTORY).exists():
        return None
    history = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    tests = [epoch["test"] for epoch in history if "test" in epoch]
    if not tests:
        return None
    ks = [int(name.removeprefix("segment_top")) for name in tests[-1] if "segment_top" in name]
    values = [(tests[-1][f"segment_top{k}"], tests[-1][f"chance_top{k}"]) for k in ks]
    rows = [
        (EVERYONE, k, *pair, tests[-1]["n_candidates"]) for k, pair in zip(ks, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS) if rows else None


def study_of(xp: dora.XP) -> str:
    """Selections of an experiment, joined by +."""
    return "+".join(xp.cfg.dset.selections)


def name_rows(
    experiments: Sequence[dora.XP], rows: Mapping[str, Mapping[str, object]]
) -> dict[str, str]:
    """Name of the row that each experiment belongs to, by signature.

    What tells rows apart are the arguments that not all experiments of the same study have, the
    seed and experiments that start from others aside. Those that only judge belong to the row of
    what they judge.

    Parameters
    ----------
    experiments : of a grid, parents before those that start from them.
    rows : options of each row, by name; others are called by their arguments.
    """
    arguments = {
        xp.sig: {one for one in xp.argv if not one.startswith("seed=")} for xp in experiments
    }
    common: dict[str, set[str]] = {}
    for xp in experiments:
        if xp.cfg.continue_sig is None:
            study = study_of(xp)
            common[study] = common.get(study, arguments[xp.sig]) & arguments[xp.sig]
    names: dict[str, str] = {}
    judged = _judged(experiments)
    for xp in experiments:
        if judged.get(xp.sig) in names:
            names[xp.sig] = names[judged[xp.sig]]
            continue
        shared = common.get(study_of(xp), set())
        own = arguments[xp.sig] - shared
        known = [
            name
            for name, options in rows.items()
            if set(experiment.value_to_argv(dict(options))) - shared == own
        ]
        names[xp.sig] = known[0] if known else _described(own, names.get(xp.cfg.continue_sig))
    return names


def _described(own: set[str], parent: str | None) -> str:
    others = sorted(one for one in own if not one.startswith("continue_sig="))
    return ", ".join([f"after {parent}"] * (parent is not None) + others) or REFERENCE


def _judged(experiments: Sequence[dora.XP]) -> dict[str, str]:
    """Parent of each experiment that takes over weights and learns nothing."""
    return {
        xp.sig: xp.cfg.continue_sig
        for xp in experiments
        if xp.cfg.continue_sig is not None and xp.cfg.optim.lr == 0
    }


def _state(folder: Path) -> str:
    if (folder / DONE).exists():
        return "done"
    return "unfinished" if (folder / CHECKPOINT).exists() else "missing"


def _value(xp: dora.XP, key: str) -> object:
    """A number, a switch or a text; lists are joined by +."""
    value = OmegaConf.select(xp.cfg, key, default=KeyError)
    if value is KeyError:
        raise ValueError(f"{key!r} isn't a key of the configuration (conf/config.yaml).")
    if OmegaConf.is_list(value):
        return "+".join(map(str, value))
    return value if isinstance(value, int | float) else str(value)
