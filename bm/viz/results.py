"""Pictures of results: accuracies, their dependences, sensors, words, and what a decoder knows.

Enters: tables and plain values. Leaves: matplotlib figures, which belong to whoever asked. Shares
go in as shares and are shown as percent; chance is drawn, dashed, wherever there is an accuracy.

The figures follow those of Défossez et al. 2023, doi:10.1038/s42256-023-00714-5.
"""

from collections.abc import Sequence

import matplotlib
import mne
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial import QhullError

from bm.core.layout import NO_POSITION
from bm.evaluation.course import WordCourse
from bm.evaluation.figures import ACCENT, CHANCE, INK, MUTED, SOFT, STYLE, WEIGHTS

COLOURS = (ACCENT, SOFT, "#7a5c99", "#8a9a3b", "#b08a2e", MUTED, "#3b4a5a")
"""Of methods, in the order in which they come."""
DASHED = (0, (4, 3))
MIN_PLACES = 3
"""A map of fewer sensors says nothing that their names don't."""


def plot_accuracies(table: pd.DataFrame, k: int = 10) -> Figure:
    """Top-k accuracy per study and method, with chance; the paper's beside ours where it is known.

    Parameters
    ----------
    table : columns ``study``, ``method``, ``accuracy`` and ``chance``; optionally ``deviation``
        (over seeds) and ``paper``. NaN where something isn't known.
    k : of the accuracy.

    Raises
    ------
    ValueError : a column is missing, or there is nothing to draw.
    """
    _check(table, "study", "method", "accuracy", "chance")
    studies, methods = _distinct(table["study"]), _distinct(table["method"])
    width = 0.8 / len(methods)
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(max(4.4, 1.2 + 0.42 * len(studies) * (len(methods) + 1)), 3.6)
        for number, method in enumerate(methods):
            rows = table[table["method"] == method]
            places = rows["study"].map(studies.index) + (number - (len(methods) - 1) / 2) * width
            axes.bar(
                places, 100 * rows["accuracy"], 0.9 * width, label=method,
                color=COLOURS[number % len(COLOURS)],
                yerr=100 * rows["deviation"] if "deviation" in rows else None,
                error_kw={"ecolor": INK, "elinewidth": 1.2},
            )  # fmt: skip
            axes.hlines(
                100 * rows["chance"], places - 0.45 * width, places + 0.45 * width,
                color=CHANCE, linewidth=1.6,
            )  # fmt: skip
            if "paper" in rows:
                axes.plot(places, 100 * rows["paper"], "D", color="white", markeredgecolor=INK)
        axes.plot([], [], color=CHANCE, linewidth=1.6, label="chance")
        if "paper" in table and table["paper"].notna().any():
            axes.plot([], [], "D", color="white", markeredgecolor=INK, label="paper")
        axes.set_xticks(range(len(studies)), studies)
        axes.tick_params(axis="x", length=0)
        axes.set(ylabel=f"top-{k} accuracy, %", ylim=(0, None))
        axes.grid(axis="y")
        figure.legend(loc="outside right upper", frameon=False)
    return figure


def plot_ablation(table: pd.DataFrame, k: int = 10) -> Figure:
    """Change of accuracy by each variant: of each study, their mean, and that of the paper.

    Parameters
    ----------
    table : columns ``variant``, ``study`` and ``difference`` to the reference (a share; points once
        drawn); optionally ``paper``, the paper's mean change. Variants are sorted by their mean.
    k : of the accuracy.

    Raises
    ------
    ValueError : a column is missing, or there is nothing to draw.
    """
    _check(table, "variant", "study", "difference")
    means = table.groupby("variant", sort=False)["difference"].mean().sort_values(ascending=False)
    row_of = {variant: row for row, variant in enumerate(means.index)}
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(6.4, 1.1 + 0.32 * max(len(means), 3))
        axes.barh(range(len(means)), 100 * means, 0.62, color=SOFT, label="mean")
        for number, (study, rows) in enumerate(table.groupby("study", sort=False)):
            colour = COLOURS[(0, 2, 3, 4)[number % 4]]
            places = rows["variant"].map(row_of)
            axes.plot(
                100 * rows["difference"], places, "o", color=colour, markersize=5, label=str(study)
            )
        if "paper" in table and table["paper"].notna().any():
            paper = table.groupby("variant")["paper"].mean()
            axes.plot(
                100 * paper, paper.index.map(row_of), "D", color="none", markeredgecolor=INK,
                label="paper, mean",
            )  # fmt: skip
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_yticks(range(len(means)), means.index)
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=f"change of top-{k} accuracy, points", ylim=(len(means) - 0.5, -0.5))
        axes.grid(axis="x")
        figure.legend(loc="outside right upper", frameon=False)
    return figure


def plot_accuracy_by_subjects(table: pd.DataFrame, k: int = 10) -> Figure:
    """Accuracy on the same test subjects against the number of subjects that were trained on.

    Parameters
    ----------
    table : columns ``n_subjects``, ``accuracy`` and ``chance``; optionally ``study``. Several rows
        of a number, such as seeds, are drawn as dots about the line of their means.
    k : of the accuracy.

    Raises
    ------
    ValueError : a column is missing, or there is nothing to draw.
    """
    _check(table, "n_subjects", "accuracy", "chance")
    labelled = table if "study" in table else table.assign(study="")
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.2, 3.2)
        for number, (study, rows) in enumerate(labelled.groupby("study", sort=False)):
            colour = COLOURS[(0, 2, 3, 4)[number % 4]]
            means = rows.groupby("n_subjects")["accuracy"].mean()
            axes.plot(means.index, 100 * means, color=colour, label=str(study) or None)
            axes.plot(rows["n_subjects"], 100 * rows["accuracy"], ".", color=colour)
            chances = rows.groupby("n_subjects")["chance"].mean()
            axes.plot(chances.index, 100 * chances, color=CHANCE, linewidth=1.2, linestyle=DASHED)
        axes.set(xlabel="subjects trained on", ylabel=f"top-{k} accuracy, %", ylim=(0, None))
        axes.grid(axis="y")
        if "study" in table:
            axes.legend(frameon=False)
    return figure


def plot_lags(table: pd.DataFrame) -> Figure:
    """Accuracy with brain signals from earlier (left) or later than those that were trained on.

    Parameters
    ----------
    table : ``lags.csv`` of `scripts.controls`: ``lag`` in seconds, ``k``, ``accuracy``, ``chance``.

    Raises
    ------
    ValueError : a column is missing, or there is nothing to draw.
    """
    _check(table, "lag", "k", "accuracy", "chance")
    table = table.sort_values("lag")
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5.2, 3.2)
        axes.plot(table["lag"], 100 * table["accuracy"], color=ACCENT, marker=".")
        axes.plot(
            table["lag"], 100 * table["chance"], color=CHANCE, linewidth=1.2, linestyle=DASHED
        )
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set(xlabel="lag, s", ylabel=f"top-{table['k'].iloc[0]} accuracy, %", ylim=(0, None))
        axes.grid(axis="y")
    return figure


def plot_sensor_map(
    positions: np.ndarray, values: np.ndarray, title: str = "", label: str = ""
) -> Figure:
    """Map of the head, seen from above, nose up: attention to sensors, or how each is predicted.

    Parameters
    ----------
    positions : [C, 2] in 0..1, `bm.core.layout.NO_POSITION` for a sensor without a place, which is
        left out. Sensors at one place, such as gradiometers of a pair, are averaged.
    values : [C]. Values below 0 get a scale of their own, symmetric about it.
    title : of the figure.
    label : of the scale, such as "attention, × mean" or "correlation".

    Raises
    ------
    ValueError : fewer than three places, all on a line or a circle, or the sizes differ.
    """
    placed = ~(np.asarray(positions) == NO_POSITION).all(axis=1)
    if len(values) != len(placed):
        raise ValueError(f"{len(values)} values for {len(placed)} sensors: give one for each.")
    placed &= np.isfinite(values)
    places, which = np.unique(np.asarray(positions)[placed], axis=0, return_inverse=True)
    if len(places) < MIN_PLACES:
        raise ValueError(f"A map needs {MIN_PLACES} sensors with a place, not {len(places)}.")
    means = np.bincount(which.reshape(-1), weights=values[placed]) / np.bincount(which.reshape(-1))
    centred = places - (places.max(axis=0) + places.min(axis=0)) / 2
    highest = float(np.abs(means).max()) or 1.0
    is_signed = (means < 0).any()
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.4, 3.9)
        try:
            image, _ = mne.viz.plot_topomap(
                means, 0.92 * centred / np.linalg.norm(centred, axis=1).max(), axes=axes,
                show=False, sphere=1.0, cmap="RdBu_r" if is_signed else WEIGHTS, contours=4,
                vlim=(-highest if is_signed else 0.0, highest),
            )  # fmt: skip
        except QhullError as error:
            raise ValueError("Sensors that lie on a line or a circle span no map.") from error
        axes.set_title(title, fontsize=9.5, color=MUTED)
        bar = figure.colorbar(image, ax=axes, shrink=0.6, label=label)
        bar.outline.set_visible(False)
    return figure


def plot_word_course(course: WordCourse) -> Figure:
    """Probability of each word of a sentence while it goes by; onsets are marked.

    Rows are words, from the first down. What is bright right of a mark is known in time.
    """
    n_words = len(course.words)
    half = np.diff(course.times).mean() / 2 if len(course.times) > 1 else 0.05
    extent = (course.times[0] - half, course.times[-1] + half, n_words - 0.5, -0.5)
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(7.0, 1.2 + 0.26 * max(n_words, 3))
        image = axes.imshow(
            course.probabilities, aspect="auto", extent=extent, cmap=WEIGHTS, vmin=0,
            interpolation="nearest",
        )  # fmt: skip
        axes.vlines(
            course.onsets, np.arange(n_words) - 0.5, np.arange(n_words) + 0.5, color=CHANCE,
            linewidth=1.8,
        )  # fmt: skip
        axes.set_yticks(range(n_words), course.words)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("seconds since the first word; orange: the word's onset")
        chance = 100 * course.chances.mean()
        bar = figure.colorbar(image, ax=axes, label=f"probability (chance {chance:.1f} %)")
        bar.outline.set_visible(False)
    return figure


def plot_knowledge(table: pd.DataFrame) -> Figure:
    """How well each feature of the words predicts the decoder's probabilities, by subject.

    Parameters
    ----------
    table : columns ``feature``, ``subject`` and ``r`` (see `bm.evaluation.knowledge`).

    Raises
    ------
    ValueError : a column is missing, or there is nothing to draw.
    """
    _check(table, "feature", "subject", "r")
    features = _distinct(table["feature"])
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(max(4.4, 1.2 + 0.9 * len(features)), 3.4)
        for number, feature in enumerate(features):
            values = table.loc[table["feature"] == feature, "r"].to_numpy(float)
            spread = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
            axes.plot(number + spread, values, "o", color=SOFT, markersize=5)
            axes.hlines(np.nanmean(values), number - 0.3, number + 0.3, color=ACCENT, linewidth=2.4)
        axes.axhline(0, color=CHANCE, linewidth=1.2, linestyle=DASHED)
        axes.set_xticks(range(len(features)), features, rotation=20, ha="right")
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("correlation of predicted\nand actual probability")
        axes.grid(axis="y")
    return figure


def _check(table: pd.DataFrame, *columns: str) -> None:
    """Make sure that a table has these columns, and rows."""
    for column in columns:
        if column not in table:
            given = ", ".join(map(str, table)) or "none"
            raise ValueError(f"The table needs a column {column!r}; its columns are: {given}.")
    if not len(table):
        raise ValueError("The table has no rows: there is nothing to draw yet.")


def _distinct(values: "pd.Series[str]") -> Sequence[str]:
    return [str(value) for value in dict.fromkeys(values)]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
