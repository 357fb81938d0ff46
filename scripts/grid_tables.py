"""Tables of a grid's results: means over seeds, differences with p values, the paper beside them.

Enters: what `scripts.grid_results` collected. Leaves: tidy tables, one figure a line, in percent;
wide ones to look at; CSV and LaTeX files.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bm.core.cache import write_atomically
from bm.evaluation.statistics import compare, holm, seed_variance
from bm.evaluation.tables import EVERYONE
from bm.published.results import STUDIES, published_results
from scripts.grid_results import REFERENCE, GridResults

ALL, MEAN = "all studies", "mean"
NOTHING = "–"
FORMATS = {"mean": ".1f", "difference": "+.1f", "count": ",g"}
"""How our figures, and those of the paper beside them, are written."""


def summarise(results: GridResults, by: Sequence[str] = ("row",), k: int = 10) -> pd.DataFrame:
    """Top-k accuracy of each row and study: mean and standard deviation over seeds, in percent.

    Parameters
    ----------
    results : of a grid.
    by : columns of its experiments that make a row of the table.
    k : of the accuracy.

    Returns
    -------
    DataFrame with `by`, ``study``, ``mean``, ``deviation`` (n - 1; NaN for one seed), ``n_seeds``
    that were tested, ``n_planned`` seeds of the grid, ``chance`` and ``n_candidates``. Rows that
    nothing is known of yet have NaN.
    """
    accuracies = results.accuracies
    tested = accuracies[(accuracies["k"] == k) & (accuracies["subject"] == EVERYONE)]
    table = results.experiments.reset_index().merge(tested, on="sig", how="left")
    lines = []
    for names, group in table.groupby([*by, "study"], sort=False, dropna=False):
        known = group.dropna(subset="accuracy")
        seeds = (
            seed_variance((100 * known["accuracy"].astype(float)).tolist()) if len(known) else None
        )
        lines.append(
            {
                **dict(zip([*by, "study"], names, strict=True)),
                "mean": seeds.mean if seeds else np.nan,
                "deviation": seeds.deviation if seeds else np.nan,
                "n_seeds": len(known),
                "n_planned": group["seed"].nunique(),
                "chance": 100 * known["chance"].mean(),
                "n_candidates": known["n_candidates"].mean(),
            }
        )
    return pd.DataFrame(lines)


def differences(results: GridResults, reference: str = REFERENCE, k: int = 10) -> pd.DataFrame:
    """What each row gains or loses against one of them, in points, and how sure that is.

    Parameters
    ----------
    results : of a grid; p values need evaluated experiments (`scripts.run_eval_probs`).
    reference : row that the others are compared with.
    k : of the accuracy.

    Returns
    -------
    DataFrame with ``row``, ``study`` (`ALL`: mean of the studies, subjects of all), ``difference``
    of the means over seeds, ``n_subjects``, ``p`` (two-sided Wilcoxon signed-rank test of the
    subjects' accuracies, mean over seeds), ``p_holm`` (corrected for the rows of the study) and
    ``p_floor``, the smallest p that so many subjects can give.

    Raises
    ------
    ValueError : the grid has no such row.
    """
    rows = list(dict.fromkeys(results.experiments["row"]))
    if reference not in rows:
        raise ValueError(f"There is no row {reference!r} in {results.name}: {', '.join(rows)}.")
    studies = list(dict.fromkeys(results.experiments["study"]))
    means = _means(results, k)
    lines = []
    for row in rows:
        if row == reference:
            continue
        pairs = [(means[row, study], means[reference, study]) for study in studies]
        lines += [
            {"row": row, "study": study, **_difference([pair])}
            for study, pair in zip(studies, pairs, strict=True)
        ]
        if len(studies) > 1:
            lines.append({"row": row, "study": ALL, **_difference(pairs)})
    table = pd.DataFrame(
        lines, columns=["row", "study", "difference", "n_subjects", "p", "p_floor"]
    )
    table["p_holm"] = np.nan
    for _, group in table.dropna(subset="p").groupby("study"):
        table.loc[group.index, "p_holm"] = holm(group["p"].tolist())
    return table


def paper_accuracies(table: str, measure: str = "top10") -> pd.DataFrame:
    """``row``, ``study``, ``paper`` and ``paper_deviation`` of a table of `published_results`."""
    published = published_results(table)
    published = published[(published["measure"] == measure) & (published["study"] != MEAN)]
    published = published.rename(columns={"value": "paper", "deviation": "paper_deviation"})
    return published[["row", "study", "paper", "paper_deviation"]].reset_index(drop=True)


def paper_differences() -> pd.DataFrame:
    """``row``, ``study`` and ``paper``: changes of the published ablation, in points."""
    accuracies = paper_accuracies("ablation").set_index(["row", "study"])["paper"]
    change = accuracies - accuracies.xs(REFERENCE).reindex(accuracies.index, level="study")
    mean = published_results("ablation").query("measure == 'change'").set_index("row")["value"]
    mean = pd.concat({ALL: mean}, names=["study"]).reorder_levels(["row", "study"])
    table = pd.concat([change, mean]).round(1).rename("paper").reset_index()
    return table[table["row"] != REFERENCE].reset_index(drop=True)


def with_paper(
    table: pd.DataFrame, paper: pd.DataFrame, by: Sequence[str] = ("row", "study")
) -> pd.DataFrame:
    """Put the paper's figures beside ours, matched by some columns.

    What only the paper has follows; ours are NaN there.
    """
    keys = list(by)
    ours = table.merge(paper, on=keys, how="left")
    known = set(table[keys].itertuples(index=False, name=None))
    is_known = [pair in known for pair in paper[keys].itertuples(index=False, name=None)]
    return pd.concat([ours, paper[~np.array(is_known)]], ignore_index=True)


def wide(
    table: pd.DataFrame,
    index: Sequence[str] = ("row",),
    columns: Sequence[str] = ("study",),
    value: str = "mean",
) -> pd.DataFrame:
    """Figures as texts, such as "71.3 ± 0.4": ours ("bm") and, where there are any, the paper's.

    "(1 of 3)" follows an accuracy that lacks seeds, the corrected p a difference.

    Parameters
    ----------
    table : tidy.
    index, columns : of its columns, what become rows and columns.
    value : column of our figure, one of `FORMATS`; that of the paper is ``paper``.
    """
    kinds = ["bm", "paper"] if "paper" in table else ["bm"]
    cells: dict[tuple[object, ...], dict[tuple[object, ...], str]] = {}
    for line in table.to_dict("records"):
        place = tuple(STUDIES.get(line[name], line[name]) for name in columns)
        row = cells.setdefault(tuple(line[name] for name in index), {})
        row[(*place, "bm")] = _ours(line, value)
        if "paper" in kinds:
            row[(*place, "paper")] = _text(line["paper"], line.get("paper_deviation"), value)
    places = sorted({place[:-1] for row in cells.values() for place in row}, key=_order)
    header = [(*place, kind) for place in places for kind in kinds]
    return pd.DataFrame(
        [[row.get(place, NOTHING) for place in header] for row in cells.values()],
        index=pd.MultiIndex.from_tuples(cells, names=list(index)),
        columns=pd.MultiIndex.from_tuples(header, names=[*columns, ""]),
    )


def export(table: pd.DataFrame, shown: pd.DataFrame, out: str | Path, name: str) -> list[Path]:
    """Write ``NAME.csv`` of a tidy table and ``NAME.tex`` of the one that is shown."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.csv", folder / f"{name}.tex"]
    latex = shown.to_latex(escape=True, multicolumn_format="c")
    write_atomically(files[0], partial(table.to_csv, index=False))
    write_atomically(files[1], lambda part: part.write_text(latex, encoding="utf-8"))
    return files


def _means(results: GridResults, k: int) -> dict[tuple[str, str], dict[str, float]]:
    """Accuracy of each subject, and of all, in percent, mean over seeds, by row and study."""
    accuracies = results.accuracies[results.accuracies["k"] == k]
    found = accuracies.merge(results.experiments[["row", "study"]], left_on="sig", right_index=True)
    means: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for names, group in found.groupby(["row", "study", "subject"]):
        row, study, subject = map(str, names)
        means[row, study][subject] = 100 * float(group["accuracy"].mean())
    return means


def _difference(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> dict[str, Any]:
    """First minus second in the studies where both were tested: mean of studies, all subjects."""
    tested = [pair for pair in pairs if all(EVERYONE in one for one in pair)]
    if not tested:
        return {"n_subjects": 0}
    overall = float(np.mean([first[EVERYONE] - second[EVERYONE] for first, second in tested]))
    first, second = (
        {name: mean for one in several for name, mean in one.items() if name != EVERYONE}
        for several in zip(*tested, strict=True)
    )
    if not first.keys() & second.keys():  # known from the history only
        return {"difference": overall, "n_subjects": 0}
    found = compare(first, second)
    return {
        "difference": overall,
        "n_subjects": found.n_subjects,
        "p": found.p,
        "p_floor": found.p_floor,
    }


def _ours(line: Mapping[Hashable, Any], value: str) -> str:
    """Our figure, and what one has to know of it."""
    text = _text(line[value], line.get("deviation"), value)
    if 0 < line.get("n_seeds", 0) < line.get("n_planned", 0):
        text += f" ({line['n_seeds']:g} of {line['n_planned']:g})"
    if line.get("p_holm", np.nan) >= 0:
        text += f" (p = {line['p_holm']:.2g})"
    return text


def _text(figure: float, deviation: float | None, value: str) -> str:
    if pd.isna(figure):
        return NOTHING
    spread = "" if deviation is None or pd.isna(deviation) else f" ± {deviation:.1f}"
    return f"{figure:{FORMATS[value]}}{spread}"


def _order(place: tuple[object, ...]) -> tuple[object, ...]:
    """The paper's studies in its order, others after them, and numbers by their size."""
    known = list(STUDIES.values())
    keys = []
    for part in place:
        rank = known.index(part) if part in known else len(known) + (part == ALL)
        keys.append((rank, part if isinstance(part, int | float) else 0.0, str(part)))
    return tuple(keys)
