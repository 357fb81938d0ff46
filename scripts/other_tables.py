"""Tables of one option each: mel bands, learning rate and batch, delay, bad epochs, words, people.

Enters: grids such as those of the paper (`bm.grids.nmi`), complete or not. Leaves: tidy tables of
`scripts.grid_tables.summarise`, with the paper's figures where any are at hand.
"""

from collections.abc import Sequence

import pandas as pd

from scripts.experiments import Grid
from scripts.grid_results import GridResults, collect
from scripts.grid_tables import paper_accuracies, summarise, with_paper

BANDS = "dset.features_params.MelSpectrum.n_mels"
RATE, BATCH, DELAY = "optim.lr", "optim.batch_size", "task.offset_meg_ms"
N_SUBJECTS, N_TESTED = "dset.n_subjects", "dset.n_subjects_test"
AUTOREJECT, CLAMP = "dset.autoreject", "norm.max_scale"
WINDOW = ["dset.tmin", "dset.tmax"]
PUBLISHED_BANDS = 120
WAYS = {
    ("None", "mse"): "mel, regression",
    ("None", "clip"): "mel, contrastive",
    ("deep_mel", "clip"): "DeepMel",
}
"""Rows of Table 2, by model of the features and loss."""


def mel_table(grid: Grid | str, k: int = 10) -> pd.DataFrame:
    """Accuracy by way of training (``row``) and number of mel ``bands``; the paper's with 120."""
    keys = [BANDS, "feature_model_name", "optim.loss"]
    results = collect(grid, keys)
    ways = results.experiments[keys[1:]].itertuples(index=False, name=None)
    rows = [WAYS.get(way, ", ".join(way)) for way in ways]
    named = results.experiments.assign(row=rows).rename(columns={BANDS: "bands"})
    table = summarise(GridResults(results.name, named, results.accuracies), ["row", "bands"], k)
    paper = paper_accuracies("main", f"top{k}")
    paper = paper[paper["row"].isin(WAYS.values())].assign(bands=PUBLISHED_BANDS)
    return with_paper(table, paper, ["row", "bands", "study"])


def rate_table(grid: Grid | str, k: int = 10) -> pd.DataFrame:
    """Accuracy by learning rate and batch size, at the delay that most experiments have."""
    results = _with_most(collect(grid, [RATE, BATCH, DELAY]), [DELAY], [RATE, BATCH])
    return summarise(results, [RATE, BATCH], k)


def delay_table(grid: Grid | str, k: int = 10) -> pd.DataFrame:
    """Accuracy by delay from sound to brain, at the rate and batch that have most delays."""
    results = _with_most(collect(grid, [RATE, BATCH, DELAY]), [RATE, BATCH], [DELAY])
    return summarise(results, [DELAY], k)


def autoreject_table(grid: Grid | str, k: int = 10) -> pd.DataFrame:
    """Accuracy with and without autoreject, by the clamp that large values meet."""
    return summarise(collect(grid, [AUTOREJECT, CLAMP]), [AUTOREJECT, CLAMP], k)


def wordlist_table(grid: Grid | str, k: int = 10) -> pd.DataFrame:
    """Accuracy by window, in seconds before and after a word."""
    return summarise(collect(grid, WINDOW), WINDOW, k)


def subject_table(grids: Sequence[Grid | str], k: int = 10) -> pd.DataFrame:
    """Accuracy by number of subjects trained on ("None": all) and tested on."""
    keys = [N_SUBJECTS, N_TESTED]
    return pd.concat([summarise(collect(grid, keys), keys, k) for grid in grids], ignore_index=True)


def _with_most(results: GridResults, fixed: Sequence[str], varied: Sequence[str]) -> GridResults:
    """Experiments with those values of the fixed keys under which most others were tried."""
    distinct = results.experiments[[*fixed, *varied]].drop_duplicates()
    counts = distinct.groupby(list(fixed), sort=False).size()
    best = counts.idxmax()
    values = best if isinstance(best, tuple) else (best,)
    chosen = (results.experiments[list(fixed)] == list(values)).all(axis=1)
    return results.select(chosen)
