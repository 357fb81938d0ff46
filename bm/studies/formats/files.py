"""Files that studies come in, read so that every fault names the file and the way out.

Enters: a path. Leaves: text, or the variables of a MATLAB file.
"""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scipy  # its parts are imported when they are used: readers take long

from bm.core.messages import DataError, did_you_mean

logger = logging.getLogger(__name__)

HDF5 = b"MATLAB 7.3"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
UTF8 = ("utf-8-sig",)


def missing(path: Path, remedy: str = "") -> DataError:
    """Error for a file or folder that isn't there; it may be written otherwise, or still packed."""
    hints = [remedy] if remedy else []
    twin = other_case(path)
    if twin is not None:
        hints.append(
            f"{twin.name!r} is there: upper and lower case matter, rename it to {path.name!r}."
        )
    for folder in (path, *path.parents[:2]):
        archive = folder.with_name(f"{folder.name}.zip")
        if not folder.exists() and archive.exists():
            hints.append(f"Unpack {archive}.")
    if path.is_symlink():
        hints.append("It is a link to content that was not downloaded (git annex): `datalad get`.")
    return DataError(" ".join([f"{path} is missing.", *hints]))


def other_case(path: Path) -> Path | None:
    """The file or folder whose name differs from that of `path` in case alone, if there is one."""
    if not path.parent.is_dir():
        return None
    same = (p for p in sorted(path.parent.iterdir()) if p.name.lower() == path.name.lower())
    return next((p for p in same if p.name != path.name), None)


def named_files(folder: Path, pattern: str) -> list[Path]:
    """Files and folders in `folder` whose whole name fits a regular expression, sorted.

    Those that fit but for upper and lower case are not used, and logged.
    """
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if re.fullmatch(pattern, path.name):
            found.append(path)
        elif re.fullmatch(pattern, path.name, re.IGNORECASE):
            logger.warning(
                "%s is not used: upper and lower case matter, its name should be like %s.",
                path,
                pattern.replace("\\d+", "1").replace("\\d\\d", "01").replace("\\.", "."),
            )
    return found


def read_text(path: Path, encodings: Sequence[str] = UTF8) -> str:
    """Read a text file in the first of `encodings` that fits it.

    "utf-16" is tried on files that begin with its mark, all others on those that don't.

    Raises
    ------
    DataError : the file is missing, or its bytes are no text in any of the encodings.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        if not path.exists():
            raise missing(path) from error
        raise DataError(f"{path} can't be read ({error.strerror}).") from error
    is_wide = content.startswith(UTF16)
    fault = UnicodeError("it begins like UTF-16") if is_wide else None
    for encoding in encodings:
        if (encoding == "utf-16") != is_wide:
            continue
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            fault = fault or error
        else:
            if fault is not None and not is_wide:
                logger.warning("%s is not UTF-8; read as %s.", path, encoding)
            return text
    line = content[: getattr(fault, "start", 0)].count(b"\n") + 1
    raise DataError(
        f"{path}: not UTF-8 text from line {line} on ({fault}). Convert it, for instance with "
        f"iconv -f LATIN1 -t UTF-8 {path.name} > converted; or download it again."
    ) from fault


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; numbers that no float can hold become infinite.

    Raises
    ------
    DataError : the file is missing, not UTF-8, no JSON, or holds something else.
    """
    text = read_text(path)
    try:
        content = json.loads(text, parse_int=_as_number)
    except (ValueError, RecursionError) as error:
        what = "it is the page of a failed download" if text.lstrip()[:1] == "<" else "truncated?"
        raise DataError(f"{path}: no JSON ({what}; {error}). Download or copy it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds {type(content).__name__}, not an object ({{...}}).")
    return content


def _as_number(digits: str) -> int | float:
    """A whole number; one that is longer than any that makes sense, as a float."""
    return int(digits) if len(digits) < 300 else float(digits)


def read_mat(
    path: Path, names: Sequence[str], remedy: str = "", optional: Sequence[str] = ()
) -> dict[str, Any]:
    """Read variables of a MATLAB file up to version 7; structs are dictionaries, cells arrays.

    Arrays lose their axes of length 1, so a cell with one text in it becomes that text.

    Parameters
    ----------
    path : the file.
    names : variables that must be there.
    remedy : what to do if the file is missing.
    optional : variables that are read if they are there.

    Raises
    ------
    DataError : the file is missing, truncated or of another kind, or lacks a variable.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(HDF5))
    except OSError as error:
        if not path.exists():
            raise missing(path, remedy) from error
        raise DataError(f"{path} can't be read ({error.strerror}).") from error
    if start == HDF5:
        raise DataError(
            f"{path} is of MATLAB's version 7.3, the published file isn't. Load it in MATLAB and "
            "write it with save(..., '-v7')."
        )
    try:
        variables = scipy.io.loadmat(path, simplify_cells=True, variable_names=[*names, *optional])
    except Exception as error:  # scipy raises a dozen types for a broken file
        raise DataError(
            f"Cannot read {path} ({type(error).__name__}: {error}): {_guess(path, start)} "
            "Download or copy it again."
        ) from error
    for name in names:
        if name not in variables:
            there = [entry[0] for entry in scipy.io.whosmat(path)]
            hint = did_you_mean(name, there)
            raise DataError(f"{path}: no variable {name!r}. {hint} Is it the right file?")
    return variables


def as_list(value: Any) -> list[str]:
    """Texts of a cell, also of one that shrank to a single text or to nothing on the way.

    Rows of a character matrix lose the blanks that fill them up.
    """
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    return [str(item).strip() for item in value]


def _guess(path: Path, start: bytes) -> str:
    if not path.stat().st_size:
        return "it is empty."
    if start.lstrip()[:1] == b"<":
        return "it holds text, such as the page of a failed download."
    return "it is truncated, or no MATLAB file."
