"""Paths that others wrote, in lists of files and archives, and the patterns that choose among them.

Patterns match level by level, as in a shell; ``**`` at the end stands for everything below.
"""

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from bm.core.messages import DataError

FOLDER = ".download"
"""Where, below the data, the manifest lies: readers of BIDS pass over hidden folders."""
BELOW = "**"
UNFINISHED = (".part", ".part-version")


def safe_path(text: str) -> str:
    """The path, with slashes, if it stays below the folder that it is meant for.

    Raises
    ------
    DataError : it leads out of that folder, or to the manifest.
    """
    slashed = text.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    is_absolute = slashed.startswith("/") or re.match("[A-Za-z]:", slashed)
    if is_absolute or not parts or ".." in parts or "\0" in text:
        raise DataError(f"{text!r} leads out of the folder of the data: not written.")
    if parts[0] == FOLDER:
        raise DataError(f"{text!r} would be taken for a file of the download itself: not written.")
    return "/".join(parts)


def make_folder(folder: Path, root: Path) -> None:
    """Make a folder below `root`, unless it is somewhere else, by a link.

    Raises
    ------
    DataError : it is, so what is there isn't ours to change.
    """
    if not folder.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"{folder} is a link that leads out of {root}: nothing is written. Delete the link, or "
            "name the place where all the data are with local_path."
        )
    folder.mkdir(parents=True, exist_ok=True)


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a file's path fits one of the patterns."""
    return any(_fits(path.split("/"), pattern.split("/")) for pattern in patterns)


def leads_to(folder: str, patterns: Iterable[str]) -> bool:
    """Whether a folder can hold, at any depth, files that fit one of the patterns."""
    parts = folder.split("/")
    for pattern in patterns:
        levels = pattern.split("/")
        deep_enough = len(levels) > len(parts) or levels[-1] == BELOW
        pairs = zip(parts, levels, strict=False)
        if deep_enough and all(level == BELOW or fnmatchcase(part, level) for part, level in pairs):
            return True
    return False


def find_files(root: Path, patterns: Iterable[str]) -> Iterator[str]:
    """Paths below `root`, sorted, of the files that fit one of the patterns.

    Hidden ones, and files that are not all there yet, are passed over.
    """
    patterns = list(patterns)
    folders = [root]
    while folders:
        folder = folders.pop()
        for entry in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():
            path = entry.relative_to(root).as_posix()
            if entry.name.startswith(".") or entry.suffix in UNFINISHED:
                continue
            if entry.is_dir():
                if leads_to(path, patterns):
                    folders.append(entry)
            elif matches(path, patterns):
                yield path


def _fits(parts: list[str], levels: list[str]) -> bool:
    if levels[-1] == BELOW:
        levels = levels[:-1]
        if len(parts) <= len(levels):
            return False
        parts = parts[: len(levels)]
    return len(parts) == len(levels) and all(map(fnmatchcase, parts, levels))
