"""Data that are on this machine already: linked into place, never copied, never written to."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from bm.core.messages import DataError
from bm.studies.downloads.paths import find_files

logger = logging.getLogger(__name__)


def link_files(source: Path, root: Path, patterns: Sequence[str]) -> int:
    """Link files of `source` to the same places below `root`; returns how many there are.

    What is below `root` already stays, unless it is another link.

    Raises
    ------
    DataError : `source` has no such files, or lies within `root` or the other way round.
    """
    source, root = source.resolve(), root.resolve()
    if source.is_relative_to(root) or root.is_relative_to(source):
        raise DataError(
            f"local_path={source} and the folder for links to it, {root}, lie one in the other. If "
            "the data are in place already, name their folder with path and leave local_path out."
        )
    paths = list(find_files(source, patterns))
    dangling = [path for path in paths if not (source / path).exists()]
    if len(dangling) == len(paths):
        raise DataError(f"local_path={source} has none of the files {', '.join(patterns)}.")
    if dangling:
        logger.warning(
            "%s and %d other file(s) below %s are links to nothing (git annex: datalad get).",
            dangling[0],
            len(dangling) - 1,
            source,
        )
    for path in paths:
        if (source / path).exists():
            _link(source / path, root / path)
    return len(paths) - len(dangling)


def _link(file: Path, link: Path) -> None:
    if link.is_symlink():
        if os.readlink(link) == str(file):
            return
        link.unlink()
    elif link.exists():
        logger.info("%s is there already: not linked.", link)
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(file)
