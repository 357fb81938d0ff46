"""What a published study should hold, and how what was found compares.

Enters: counts. Leaves: lines in the log. A difference is a warning with its likely cause, never an
error: a part of a study can be trained on, too.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

logger = logging.getLogger(__name__)

Expected = float | tuple[float, float]
"""A number, or the least and the greatest that are right."""


@dataclass(frozen=True)
class Facts:
    """What is known of a published study.

    Attributes
    ----------
    licence : of the data.
    doi : of the data.
    subjects, recordings, hours : after loading.
    counts : of each recording, by what is counted: sensors, words, ...
    """

    licence: str
    doi: str
    subjects: Expected
    recordings: Expected
    hours: Expected
    counts: Mapping[str, Expected]


def compare(
    source: str, expected: Mapping[str, Expected], found: Mapping[str, float], cause: str
) -> bool:
    """Log what was found beside what was expected; True if they agree.

    Parameters
    ----------
    source : what was counted: a study's folder, or a recording.
    expected, found : numbers by name; those that were not counted are not compared.
    cause : likely reason, should they differ; no full stop.
    """
    wrong = [
        f"{name} {_text(expected[name])} vs {number:g}"
        for name, number in found.items()
        if name in expected and not _agrees(expected[name], number)
    ]
    if wrong:
        logger.warning(
            "%s: expected vs found: %s. Likely cause: %s.", source, "; ".join(wrong), cause
        )
    else:
        counted = ", ".join(f"{number:g} {name}" for name, number in found.items())
        logger.info("%s: as expected: %s.", source, counted)
    return not wrong


def take_stock(
    source: str, facts: Facts, subjects: Collection[object], recordings: Collection[str], part: bool
) -> "Tally":
    """Compare the number of recordings with the known one; the result does so with their hours.

    Parameters
    ----------
    source : folder of the study.
    facts : what it should hold.
    subjects, recordings : names of those found.
    part : only some were asked for, so nothing is to be compared.
    """
    cause = "not all files were downloaded, or some were added"
    expected = {"subjects": facts.subjects, "recordings": facts.recordings}
    found = {"subjects": len(subjects), "recordings": len(recordings)}
    is_whole = not part and compare(source, expected, found, cause)
    return Tally(source, recordings, facts.hours if is_whole else None, cause)


class Tally:
    """Adds up the hours of a study's recordings; compares them once all were loaded.

    Parameters
    ----------
    source : folder of the study, for the log.
    recordings : names of all that will be loaded.
    hours : expected; None: it is known that they will differ.
    cause : likely reason, should they differ.
    """

    def __init__(
        self, source: str, recordings: Collection[str], hours: Expected | None, cause: str
    ):
        self._source, self._recordings = source, set(recordings)
        self._expected, self._cause = hours, cause
        self._hours: dict[str, float] = {}

    def add(self, recording: str, seconds: float) -> bool:
        """Count a recording; false if that was done before."""
        is_new = recording not in self._hours
        self._hours[recording] = seconds / 3600
        if is_new and set(self._hours) == self._recordings:
            total = round(sum(self._hours.values()), 2)
            if self._expected is None:
                logger.info("%s: %g hours in all.", self._source, total)
            else:
                compare(self._source, {"hours": self._expected}, {"hours": total}, self._cause)
        return is_new


def _agrees(expected: Expected, number: float) -> bool:
    low, high = expected if isinstance(expected, tuple) else (expected, expected)
    return low <= number <= high


def _text(expected: Expected) -> str:
    if not isinstance(expected, tuple):
        return f"{expected:g}"
    low, high = expected
    return f"at least {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
