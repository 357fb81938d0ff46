"""Logs of Presentation, the program that played and showed the stimuli.

Enters: a log file. Leaves: a table of what it presented, with the times of its own clock, for each
time that the scenario was started. A log opens with "Scenario - NAME"; a table of all events
follows, then another of the stimuli alone, which says nothing new.
"""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from bm.core.messages import DataError, did_you_mean
from bm.studies.formats.files import UTF8, read_text

logger = logging.getLogger(__name__)

OPENING = "Scenario -"
COLUMNS = {"type": "Event Type", "code": "Code", "time": "Time", "duration": "Duration"}
STIMULI = ("Picture", "Sound", "Nothing")
PER_SECOND = 10_000
"""Times are whole numbers of 0.1 ms."""
WHOLE_NUMBER = re.compile(r"-?\d+")


def read_log(path: Path) -> list[pd.DataFrame]:
    """Read the events of each run of the scenario.

    A code that holds a line break after its final stop (the last word of a sentence may) is put
    together again.

    Returns
    -------
    For each run a DataFrame with ``type``, ``code``, ``time`` and ``duration`` (seconds of the
    log's clock; NaN where the cell is empty), indexed by line of the file.

    Raises
    ------
    DataError : the file is missing, no such log, or a line makes no sense; it is named.
    """
    lines = read_text(path, (*UTF8, "cp1252")).replace("\r\n", "\n").split("\n")
    begins = [index for index, line in enumerate(lines) if line.startswith(OPENING)]
    if not begins:
        raise DataError(
            f"{path}, line 1: {lines[0][:40]!r}, but a log of Presentation has a line "
            f"{OPENING + ' ...'!r}. Is it the right file?"
        )
    runs = [
        _read_run(lines[begin:end], begin + 1, path)
        for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True)
    ]
    runs = [run for run in runs if len(run)]
    if not runs:
        raise DataError(f"{path} has no events. Is it truncated? Download or copy it again.")
    return runs


def _read_run(lines: list[str], first: int, path: Path) -> pd.DataFrame:
    """Table of one run; `first` is the number of its first line in the file."""
    header, columns = _find_header(lines, first, path)
    rows, numbers = [], []
    is_whole = False
    for number, cells in _rows(lines, header + 1, first, columns["code"]):
        if cells[0] == COLUMNS["type"]:  # header of the second table
            is_whole = True
            break
        row = {name: cells[at].strip() if at < len(cells) else "" for name, at in columns.items()}
        if row["type"] in STIMULI and len(cells) <= columns["time"]:
            raise DataError(
                f"{path}, line {number}: {len(cells)} cells, but a {row['type']} needs at least "
                f"{columns['time'] + 1}. Is the log truncated? Download or copy it again."
            )
        rows.append(row)
        numbers.append(number)
    if not is_whole:
        logger.warning(
            "%s: the run at line %d has no second table: was the log cut off?", path, first
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS), index=numbers, dtype=object)
    for name in ("time", "duration"):
        table[name] = _as_seconds(table, name, path)
    return table


def _find_header(lines: list[str], first: int, path: Path) -> tuple[int, dict[str, int]]:
    """Line of the column names, and where the columns are; of two of a name, the first counts."""
    for index, line in enumerate(lines):
        cells = [cell.strip() for cell in line.split("\t")]
        if COLUMNS["type"] not in cells:
            continue
        for name in COLUMNS.values():
            if name not in cells:
                hint = did_you_mean(name, cells)
                raise DataError(f"{path}, line {first + index}: no column {name!r}. {hint}")
        return index, {name: cells.index(title) for name, title in COLUMNS.items()}
    raise DataError(
        f"{path}: no line of column names (with {COLUMNS['type']!r}) after line {first}. "
        "Is the log truncated?"
    )


def _rows(
    lines: list[str], begin: int, first: int, code_at: int
) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each line that isn't empty."""
    numbered = iter(range(begin, len(lines)))
    for index in numbered:
        line = lines[index]
        if not line.strip():
            continue
        if line.count("\t") == code_at and line.endswith(".") and index + 1 < len(lines):
            line += lines[next(numbered)]
        yield first + index, line.split("\t")


def _as_seconds(table: pd.DataFrame, column: str, path: Path) -> "pd.Series[float]":
    """Times in seconds; those of stimuli must be numbers or empty."""
    cells = table[column]
    is_number = cells.map(lambda cell: WHOLE_NUMBER.fullmatch(cell) is not None).astype(bool)
    bad = ~is_number & (cells != "") & table["type"].isin(STIMULI)
    if column == "duration":  # the length of a picture may be "next": until the next one
        bad &= ~cells.str.isalpha().astype(bool)
    if bad.any():
        raise DataError(
            f"{path}, line {table.index[bad][0]}, column {COLUMNS[column]!r}: "
            f"{cells[bad].iloc[0]!r} is no whole number ({bad.sum()} such line(s))."
        )
    return (
        cells.where(is_number, None).astype(float) / PER_SECOND
        if len(cells)
        else cells.astype(float)
    )
