"""Praat TextGrids in the long text format, as WebMAUS writes them.

Enters: a file. Leaves: the labelled intervals of each tier. Only what stands below "intervals [n]:"
is read, as times elsewhere in the file may be malformed.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bm.core.messages import DataError
from bm.studies.formats.files import UTF8, read_text

FIRST_LINE = 'File type = "ooTextFile'
TIER = re.compile(r'\s*name\s*=\s*"(.*)"\s*$')
SIZE = re.compile(r"\s*intervals\s*:\s*size\s*=\s*(\d+)\s*$")
INTERVAL = re.compile(r"\s*intervals\s*\[\d+\]\s*:?\s*$")
FIELD = re.compile(r"\s*(xmin|xmax|text)\s*=\s*(.*?)\s*$")


@dataclass(frozen=True)
class Interval:
    """A stretch of sound in seconds of its file, and what it is called."""

    start: float
    stop: float
    text: str


def read_textgrid(path: Path) -> dict[str, list[Interval]]:
    """All intervals by name of their tier, those without a text included.

    Raises
    ------
    DataError : the file is missing, truncated, no TextGrid, or in another of Praat's formats; or a
        time makes no sense.
    """
    lines = read_text(path, (*UTF8, "utf-16")).replace("\r\n", "\n").split("\n")
    if not lines[0].startswith(FIRST_LINE):
        raise DataError(
            f"{path}, line 1: {lines[0][:40]!r} doesn't open a TextGrid in text format "
            f"({FIRST_LINE}...). Save it as text with Praat, or download it again."
        )
    tiers: dict[str, list[Interval]] = {}
    announced: dict[str, int] = {}
    tier = ""
    numbered = enumerate(lines, start=1)
    for number, line in numbered:
        if match := TIER.match(line):
            tier = match[1]
            tiers[tier] = []
        elif match := SIZE.match(line):
            announced[tier] = int(match[1])
        elif INTERVAL.match(line):
            tiers.setdefault(tier, []).append(_read_interval(numbered, path, number))
    for name, n_intervals in announced.items():
        if len(tiers.get(name, [])) < n_intervals:
            raise DataError(
                f"{path} is truncated: tier {name!r} has {len(tiers.get(name, []))} of the "
                f"{n_intervals} intervals that it announces. Download or copy it again."
            )
    if not announced:
        raise DataError(
            f"{path} has no tier with intervals. Is it in Praat's short text format? Save it as "
            "text (long) with Praat."
        )
    return tiers


def _read_interval(lines: Iterator[tuple[int, str]], path: Path, begin: int) -> Interval:
    """Read the three fields that follow line `begin`."""
    fields: dict[str, str] = {}
    number = begin
    while len(fields) < 3:
        number, line = next(lines, (0, ""))
        if not number:
            raise DataError(f"{path}, line {begin}: the file ends within this interval.")
        match = FIELD.match(line)
        if match is None:
            raise DataError(f"{path}, line {number}: {line.strip()!r} is no xmin, xmax or text.")
        value = match[2]
        while match[1] == "text" and not _is_closed(value):  # a text may go over several lines
            more = next(lines, None)
            if more is None:
                raise DataError(f"{path}, line {number}: this text has no end.")
            value = f"{value}\n{more[1].rstrip()}"
        if match[1] != "text" and not _is_time(value):
            raise DataError(f"{path}, line {number}: {match[1]} = {value} is no time in seconds.")
        fields[match[1]] = value
    start, stop = float(fields["xmin"]), float(fields["xmax"])
    if stop < start:
        raise DataError(f"{path}, line {begin}: the interval ends at {stop}, before {start}.")
    return Interval(start, stop, fields["text"][1:-1].replace('""', '"').strip())


def _is_closed(value: str) -> bool:
    """Whether a quoted text is whole; a quotation mark within it is written twice."""
    return len(value) > 1 and value[0] == value[-1] == '"' and value.count('"') % 2 == 0


def _is_time(value: str) -> bool:
    try:
        return math.isfinite(float(value)) and float(value) >= 0
    except ValueError:
        return False
