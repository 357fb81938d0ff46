"""Tab-separated tables as BIDS prescribes them, read so that every cell keeps its text.

Enters: a file. Leaves: a DataFrame of texts, indexed by the line of the file that messages name.
"""

from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from bm.core.messages import DataError

MISSING = "n/a"


def read_tsv(path: Path) -> pd.DataFrame:
    """Read a table; cells that are empty or "n/a" become missing, the word "None" does not.

    Returns
    -------
    DataFrame of str (missing: None), whose index is the line in the file (the header is line 1).

    Raises
    ------
    DataError : the file is absent or empty, isn't UTF-8, or a line has too many or too few cells.
    """
    lines = _read_text(path).split("\n")
    header = [name.strip() for name in _cells(lines[0])]
    if header == [""]:
        raise DataError(f"{path} is empty: a table begins with a line of column names.")
    repeated = {name for name in header if header.count(name) > 1}
    if repeated:
        raise DataError(f"{path}, line 1: column(s) {sorted(repeated)} appear more than once.")
    numbers, rows = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip("\r\t "):
            continue
        cells = _cells(line)
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(cells)} cells, but the header has {len(header)}: "
                f"{', '.join(header)}. Cells are separated by tabs."
            )
        numbers.append(number)
        rows.append([None if cell in ("", MISSING) else cell for cell in cells])
    return pd.DataFrame(rows, columns=header, index=numbers, dtype=object)


def numbers_of(
    table: pd.DataFrame,
    column: str,
    path: Path,
    minimum: float = -np.inf,
    required: bool = False,
) -> "pd.Series[float]":
    """Read a column as numbers (missing, or written as NaN: NaN).

    Raises
    ------
    DataError : a cell is not a number, is less than `minimum`, or is missing though `required`; the
        message names line and column.
    """
    cells = table[column].where(table[column].str.lower() != "nan", None)
    values = pd.to_numeric(cells, errors="coerce").astype(float)
    bad = cells.notna() & ~(np.isfinite(values) & (values >= minimum))
    if bad.any():
        limit = "" if minimum == -np.inf else f" from {minimum:g} on"
        given = table.loc[bad, column].iloc[0]
        fail(path, table.index[bad], column, f"{given!r} is not a number{limit}")
    if required and values.isna().any():
        fail(path, table.index[values.isna()], column, "the cell is empty")
    return values


def fail(path: Path, lines: pd.Index, column: str, fault: str) -> NoReturn:
    """Raise the error that names file, first line and column; `fault` is that of the first line."""
    more = f" ({len(lines)} such lines)" if len(lines) > 1 else ""
    raise DataError(f"{path}, line {lines[0]}, column {column!r}: {fault}{more}.")


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} is missing or can't be read ({error.strerror}).") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        guess = "UTF-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "Latin-1"
        raise DataError(
            f"{path}, line {line}: not UTF-8 (perhaps {guess}). Convert it: "
            f"iconv -f {guess} -t UTF-8 {path.name} > converted.tsv"
        ) from error


def _cells(line: str) -> list[str]:
    """Texts between tabs, without the quotes that spreadsheets put around some."""
    cells = [cell.strip(" ") for cell in line.rstrip("\r").split("\t")]
    if '"' not in line:
        return cells
    return [
        cell[1:-1].replace('""', '"')
        if len(cell) > 1 and cell[0] == cell[-1] == '"'  # a lone quotation mark is a text
        else cell
        for cell in cells
    ]
