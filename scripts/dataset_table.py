"""What the datasets of a grid hold (Table 1 of the paper): sensors, people, hours, segments, words.

Enters: a grid. Leaves: a tidy table, the paper's figures beside ours. Features aren't needed;
signals and events come from the cache, or are prepared into it.
"""

import logging
from dataclasses import replace

import pandas as pd

from bm.build import build_data
from bm.config import Config, from_hydra
from bm.core.messages import DataError
from bm.evaluation.candidates import Unique
from bm.published.results import published_results
from bm.segments import Splits
from scripts.experiments import Grid, find_grid
from scripts.grid_results import study_of
from scripts.grid_tables import with_paper

logger = logging.getLogger(__name__)


def describe_datasets(grid: Grid | str) -> pd.DataFrame:
    """Count what each study of a grid holds.

    Parameters
    ----------
    grid : or its name. The first experiment of each study says how its data are cut.

    Returns
    -------
    DataFrame with ``study``, ``measure`` (see `count`), ``count`` and ``paper``; NaN where the data
    aren't here (the log says why) or the paper doesn't tell.

    Raises
    ------
    UsageError : there is no such grid.
    """
    grid = find_grid(grid) if isinstance(grid, str) else grid
    first = {study_of(xp): xp for xp in reversed(grid.experiments)}
    lines = []
    for study, xp in reversed(first.items()):
        try:
            counts = count(load(from_hydra(xp.cfg)))
        except (DataError, OSError, ValueError) as error:
            logger.warning("%s can't be counted: %s", study, error)
            counts = {}
        lines += [{"study": study, "measure": name, "count": n} for name, n in counts.items()]
    ours = pd.DataFrame(lines, columns=["study", "measure", "count"])
    paper = published_results("datasets").rename(columns={"value": "paper"})
    return with_paper(ours, paper[["study", "measure", "paper"]], ("measure", "study"))


def load(config: Config) -> Splits:
    """Segments of an experiment, cut in all splits as those of its test, without features."""
    as_test = {name: value for name, value in vars(config.dset.test).items() if value is not None}
    dset = replace(config.dset, **as_test, features=[], extra_test_features=[], residency="disk")
    return build_data(replace(config, dset=dset), "cpu").splits


def count(splits: Splits) -> dict[str, float]:
    """What there is.

    Segments are different ones: a window at a word is counted once, however many people heard it
    (those of the test split are the candidates of retrieval). A vocabulary holds the different
    words, in lower case, that begin in blocks of the split. How the paper counted is not known.
    """
    sensors = [len(item.signal.sensors.names) for item in splits.prepared]
    seconds = [item.signal.n_samples / item.signal.sample_rate for item in splits.prepared]
    counts = {
        "sensors": max(sensors),
        "subjects": len(splits.subjects),
        "hours": round(sum(seconds) / 3600, 1),
    }
    for split in ("train", "test"):
        counts[f"{split} segments"] = len(Unique.of(splits.datasets[split]).first)
        counts[f"{split} vocabulary"] = len(vocabulary(splits, split))
    return counts


def vocabulary(splits: Splits, split: str) -> set[str]:
    """Words, in lower case, that begin in the blocks of a split."""
    found: set[str] = set()
    for item in splits.prepared:
        words = item.events[item.events["kind"] == "word"]
        blocks = item.blocks[item.blocks["split"] == split]
        starts = blocks["start"].to_numpy(float)
        stops = starts + blocks["duration"].to_numpy(float)
        times = words["start"].to_numpy(float)[:, None]
        is_inside = ((times >= starts) & (times < stops)).any(axis=1)  # [words]
        found |= set(words["word"][is_inside].dropna().astype(str).str.lower())
    return found
