"""Lines of a reproduction: what was expected, what was found, and whether they agree.

Enters: counts and accuracies of what was run. Leaves: lines with a verdict each. Expected figures
come from `bm.published.results` and from the facts of a study; each line names its source.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bm.evaluation.statistics import seed_variance
from bm.published.results import published_results
from bm.studies.expected import Expected, Facts

OK, DIFFERS, UNKNOWN = "as expected", "differs", "no figure to compare"
REPRODUCED, BELOW, ABOVE = "reproduced", "below the paper", "above the paper"
NOT_RUN, OTHER = "not run", "not comparable: other options"
COUNTED_OTHERWISE = "differs, but how the paper counted isn't known"
FINE = (OK, UNKNOWN, REPRODUCED, COUNTED_OTHERWISE)
"""Verdicts that nobody needs to look at."""

TOLERANCES = {"hours": 0.02, "million parameters": 0.002}
"""Share by which a count may differ; all others must agree."""
UNCLEAR = ("train segments", "train vocabulary", "test segments", "test vocabulary")
"""Counts whose published definition isn't at hand."""
MARGIN = 1.0
"""Points by which an accuracy may differ, whatever the seeds: independent runs of the published
code came to 70.3 and 70.6, where the paper has 70.7."""
ROUNDING = 0.05


@dataclass(frozen=True)
class Line:
    """One comparison.

    Attributes
    ----------
    what : was looked at.
    expected, found : as texts.
    verdict : see the constants above.
    source : of the expected figure.
    """

    what: str
    expected: str
    found: str
    verdict: str
    source: str = ""

    @property
    def is_fine(self) -> bool:
        """Nobody needs to look at it."""
        return self.verdict in FINE


def compare_facts(facts: Facts, found: Mapping[str, float]) -> list[Line]:
    """Compare counts of a study with what its loader knows of the data.

    Parameters
    ----------
    facts : of the study.
    found : ``subjects``, ``recordings``, ``hours``, ``sensors``; those that are missing were not
        counted.
    """
    known: dict[str, Expected] = {
        "subjects": facts.subjects,
        "recordings": facts.recordings,
        "hours": facts.hours,
        **facts.counts,
    }
    lines = []
    for what, number in found.items():
        if what not in known:
            continue
        expected = known[what]
        low, high = expected if isinstance(expected, tuple) else (expected, expected)
        text = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        verdict = OK if low <= number <= high else DIFFERS
        lines.append(Line(what, text, f"{number:g}", verdict, f"the data, doi:{facts.doi}"))
    return lines


def compare_counts(study: str, row: str, found: Mapping[str, float]) -> list[Line]:
    """Compare counts with those of the paper and of others who ran the published code."""
    published = pd.concat([published_results("datasets"), published_results("counts")])
    own = published[(published["study"] == study) & published["row"].isin(["", row])]
    lines = []
    for one in own.to_dict("records"):
        number = found.get(one["measure"])
        expected = float(one["value"])
        if number is None:
            verdict = NOT_RUN
        else:
            tolerance = TOLERANCES.get(one["measure"], 0.0) * expected
            other = COUNTED_OTHERWISE if one["measure"] in UNCLEAR else DIFFERS
            verdict = OK if abs(number - expected) <= tolerance else other
        text = "" if number is None else f"{number:.10g}"
        lines.append(Line(one["measure"], f"{expected:.10g}", text, verdict, one["source"]))
    return lines


def compare_chance(study: str, chance: float | None) -> Line:
    """Compare chance, in percent, with the paper's random model."""
    published = published_results("main").query("row == 'random model' and study == @study")
    expected, deviation = (float(published[name].iloc[0]) for name in ("value", "deviation"))
    if chance is None:
        verdict = NOT_RUN
    else:
        verdict = OK if abs(chance - expected) <= deviation + ROUNDING else DIFFERS
    found = "" if chance is None else f"{chance:.2f} %"
    source = str(published["source"].iloc[0])
    return Line("chance of top-10", f"{expected:.1f} ± {deviation:.1f} %", found, verdict, source)


def compare_accuracies(
    study: str, row: str, accuracies: Mapping[str, Sequence[float]], n_seeds: int, is_same: bool
) -> Iterator[Line]:
    """Compare accuracies of the seeds, in percent, with the paper's.

    An accuracy is reproduced if it is within a point of the paper's, or within twice the deviations
    over seeds of both taken together.

    Parameters
    ----------
    study, row : of Table 2.
    accuracies : of each seed that was tested, by measure: ``top10``, ``top1``.
    n_seeds : that should have been tested.
    is_same : the options are those of the paper.
    """
    published = published_results("main").query("study == @study and row == @row")
    for measure, values in accuracies.items():
        name = f"top-{measure.removeprefix('top')} accuracy"
        own = published[published["measure"] == measure]
        paper = float(own["value"].iloc[0]) if len(own) else float("nan")
        paper_deviation = float(own["deviation"].iloc[0]) if len(own) else float("nan")
        expected = "" if not len(own) else _percent(paper, paper_deviation)
        source = str(own["source"].iloc[0]) if len(own) else ""
        if not values:
            yield Line(name, expected, "", NOT_RUN, source)
            continue
        seeds = seed_variance(values)
        found = _percent(seeds.mean, seeds.deviation)
        if seeds.n_seeds < n_seeds:
            found += f" ({seeds.n_seeds} of {n_seeds} seeds)"
        if np.isnan(paper):
            verdict = UNKNOWN
        elif not is_same:
            verdict = OTHER
        else:
            deviations = np.nan_to_num([seeds.deviation, paper_deviation])
            margin = max(MARGIN, 2 * float(np.hypot(*deviations)))
            within = abs(seeds.mean - paper) <= margin
            verdict = REPRODUCED if within else BELOW if seeds.mean < paper else ABOVE
        yield Line(name, expected, found, verdict, source)


def _percent(mean: float, deviation: float) -> str:
    return f"{mean:.1f} %" if np.isnan(deviation) else f"{mean:.1f} ± {deviation:.1f} %"
