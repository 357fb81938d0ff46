"""The report of an experiment: one HTML file that needs nothing but itself.

Enters: a `ReportContent` of plain values. Leaves: ``report.html``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bm.core.cache import write_atomically
from bm.core.layout import SensorMap
from bm.evaluation import figures
from bm.evaluation.breakdown import accuracy_by_candidates, breakdown, intervals, measures
from bm.evaluation.examples import Heard, choose_examples
from bm.evaluation.null import N_PERMUTATIONS, permutation_p
from bm.evaluation.retrieval import Retrieval
from bm.metrics import chance

REPORT, TEMPLATE = "report.html", "report.html.j2"
NAMED_K = 10
"""The figures by subject and during training show this k, or the largest that says something."""

History = Sequence[Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class ReportContent:
    """All that a report shows.

    Attributes
    ----------
    title : what was decoded from what.
    signature : of the experiment.
    is_simulated : whether any listener was; the report says so at its top.
    configuration : (key, value, source) of the settings that differ from the defaults.
    history : per epoch, the metrics of each split.
    retrieval : outcome for each test segment.
    subjects : names by index.
    heard : words of each candidate.
    window : seconds of brain signal per segment.
    ceiling : top-k accuracy of the best possible decoder, if known.
    sensor_maps : attention to sensors, one for each layout.
    facts : (name, value) of what else there is to know: sizes, versions.
    warnings : sentences to put at the top, such as that the answer was taken out of the data.
    set_aside : why each recording can't be used that was left out.
    controls, lags : tables of `scripts.controls`, if they were made for these weights.
    pooled : accuracies from several trials at once (`bm.evaluation.pooling.Pool.table`).
    """

    title: str
    signature: str
    is_simulated: bool
    configuration: Sequence[tuple[str, Any, str]]
    history: History
    retrieval: Retrieval
    subjects: Sequence[str]
    heard: Sequence[Heard]
    window: float
    ceiling: Mapping[int, float] | None = None
    sensor_maps: Sequence[SensorMap] = ()
    facts: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = field(default=())
    set_aside: Sequence[str] = ()
    controls: pd.DataFrame | None = None
    lags: pd.DataFrame | None = None
    pooled: pd.DataFrame | None = None


@dataclass(frozen=True)
class Accuracy:
    """One top-k accuracy and what to hold it against; shares between 0 and 1.

    Attributes
    ----------
    k, value, chance : top-k accuracy, and that of guessing.
    interval : 95 % bootstrap interval over subjects.
    standard_error : of the mean over subjects; NaN for one subject.
    ceiling : accuracy of the best possible decoder.
    """

    k: int
    value: float
    chance: float
    interval: tuple[float, float] | None
    standard_error: float
    ceiling: float | None


def write_report(folder: Path, content: ReportContent) -> Path:
    """Write ``report.html`` into a folder, which is made if needed."""
    path = folder / REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    page = render(content)
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def render(content: ReportContent) -> str:
    """The report as text."""
    environment = Environment(
        loader=PackageLoader("bm.evaluation", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number, ordinal=ordinal, clock=clock)
    accuracies = summarise(content.retrieval, content.ceiling)
    return environment.get_template(TEMPLATE).render(
        content=content,
        accuracies=accuracies,
        headline=accuracies[-1] if accuracies else None,
        n_candidates=content.retrieval.n_candidates,
        n_segments=len(content.retrieval.table),
        n_subjects=content.retrieval.table["subject"].nunique(),
        subjects=_subject_rows(content),
        figures=draw(content),
        depth=_depth(content),
        controls=[] if content.controls is None else content.controls.to_dict("records"),
        pooled=[] if content.pooled is None else content.pooled.to_dict("records"),
        examples=choose_examples(content.retrieval, content.heard, content.subjects),
        word_monitor=_latest(content.history, "wer"),
        word_chance=_latest(content.history, "wer_chance"),
    )


def summarise(retrieval: Retrieval, ceiling: Mapping[int, float] | None = None) -> list[Accuracy]:
    """Top-k accuracies with chance, uncertainty and ceiling."""
    return [
        Accuracy(
            k,
            retrieval.accuracy(k),
            chance(k, retrieval.n_candidates),
            retrieval.interval(k),
            retrieval.standard_error(k),
            None if ceiling is None else ceiling.get(k),
        )
        for k in retrieval.ks
    ]


def draw(content: ReportContent) -> list[tuple[str, str, Markup]]:
    """Title, caption and SVG of each figure that the content has something for."""
    retrieval = content.retrieval
    found: list[tuple[str, str, str]] = []
    if retrieval.ks:
        k = retrieval.ks[-1]
        level = chance(k, retrieval.n_candidates)
        names = _without_study(content.subjects)
        of_subject = {names[index]: value for index, value in retrieval.by_subject(k).items()}
        figure = figures.accuracy_by_subject(of_subject, retrieval.accuracy(k), level, k)
        found.append(("By subject", f"Top-{k} segment accuracy of each subject.", figure))
        by_size = accuracy_by_candidates(retrieval, k)
        if len(by_size) > 1:
            sizes, shares, chances = by_size.to_numpy(float).T
            label = "number of candidates"
            figure = figures.accuracy_against(sizes, shares, chances, k, label, log=True)
            caption = "Expected accuracy if the truth had fewer, random, competitors."
            found.append(("Candidates", caption, figure))
    if content.lags is not None:
        lags = content.lags
        figure = figures.accuracy_against(
            lags["lag"].to_numpy(),
            lags["accuracy"].to_numpy(),
            lags["chance"].to_numpy(),
            int(lags["k"].iloc[0]),
            "lag, s",
        )
        caption = (
            "Accuracy with brain signals from earlier (left) or later; trained for lag 0. Only the "
            "true lag may be above chance."
        )
        found.append(("Lag", caption, figure))
    figure = figures.rank_histogram(retrieval.table["rank"].to_numpy(), retrieval.n_candidates)
    caption = (
        f"Place of the true segment among {retrieval.n_candidates:,} candidates; 1 is best. "
        "Orange: by guessing."
    )
    found.append(("Ranks", caption, figure))
    found += _training_figures(content)
    for item in content.sensor_maps:
        figure = figures.sensor_map(item.positions, item.weights, item.names)
        caption = (
            f"{item.title}: attention summed over all virtual channels, relative to the mean "
            "sensor. Seen from above, nose up."
        )
        found.append(("Sensors attended to", caption, figure))
    return [(title, caption, Markup(figure)) for title, caption, figure in found]


def _depth(content: ReportContent) -> dict[str, Any]:
    """What lies beyond the headline: intervals, chance, other means, and groups of words."""
    retrieval = content.retrieval
    if not retrieval.ks:
        return {}
    k = retrieval.ks[-1]
    studies = [
        content.subjects[index].partition("/")[0] for index in retrieval.candidates["subject"]
    ]
    groups: dict[str, list[Mapping[Any, Any]]] = {}
    for row in breakdown(retrieval, k).to_dict("records"):
        groups.setdefault(str(row["by"]), []).append(row)
    return {
        "k": k,
        "intervals": intervals(retrieval, k),
        "p": permutation_p(retrieval, k, N_PERMUTATIONS, groups=studies),
        "n_permutations": N_PERMUTATIONS,
        "measures": measures(retrieval, k),
        "groups": groups,
    }


def percent(share: float) -> str:
    """71.3 % for 0.713, with more decimals near 0."""
    if 0 < share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %" if 0 < share < 0.01 else f"{100 * share:.1f} %"


def number(value: Any) -> str:
    """A value of the configuration or a count, for people."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value)) or "(empty)"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def ordinal(place: int) -> str:
    """1st, 2nd, 3rd, 4th ..."""
    suffix = (
        "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    )
    return f"{place:,}{suffix}"


def clock(seconds: float) -> str:
    """12:05.3 for 725.3 s."""
    minutes, rest = divmod(round(float(seconds), 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _without_study(subjects: Sequence[str]) -> Sequence[str]:
    """Names of subjects without the study, where there is only one."""
    studies = {name.partition("/")[0] for name in subjects}
    return [name.partition("/")[2] or name for name in subjects] if len(studies) == 1 else subjects


def _training_figures(content: ReportContent) -> list[tuple[str, str, str]]:
    history = content.history
    found = []
    losses = {
        split: [epoch[split]["loss"] for epoch in history]
        for split in ("train", "valid")
        if history and all("loss" in epoch.get(split, {}) for epoch in history)
    }
    if losses:
        best = int(np.argmin(losses["valid"])) if "valid" in losses else None
        caption = "Loss of each epoch."
        if best is not None:
            caption += f" The weights tested are those after epoch {best + 1} (circle)."
        found.append(("Learning", caption, figures.learning_curves(losses, best)))
    ks = content.retrieval.ks
    name = f"segment_top{ks[-1]}" if ks else ""
    tested = [
        (number, epoch["test"][name])
        for number, epoch in enumerate(history)
        if name in epoch.get("test", {})
    ]
    if len(tested) > 1:
        epochs, values = zip(*tested, strict=True)
        level = chance(ks[-1], content.retrieval.n_candidates)
        figure = figures.accuracy_curve(epochs, values, level, ks[-1], len(history))
        caption = f"Top-{ks[-1]} segment accuracy on the test split, of the best weights so far."
        found.append(("Accuracy during training", caption, figure))
    return found


def _subject_rows(content: ReportContent) -> list[tuple[str, int, list[float]]]:
    """Name, number of segments and top-k accuracies of each subject."""
    retrieval = content.retrieval
    of_k = [retrieval.by_subject(k) for k in retrieval.ks]
    return [
        (content.subjects[index], n, [values[index] for values in of_k])
        for index, n in retrieval.n_by_subject().items()
    ]


def _latest(history: History, name: str) -> float | None:
    """The metric of that name in the last test that has it."""
    for epoch in reversed(history):
        value = epoch.get("test", {}).get(name)
        if value is not None and math.isfinite(value):
            return value
    return None
