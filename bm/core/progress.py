"""One progress bar for everything that takes more than a moment."""

import sys
from collections.abc import Iterable, Sized
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item],
    title: str,
    unit: str,
    total: int | None = None,
    units_per_item: int = 1,
    n_updates: int = 5,
) -> "tqdm[Item]":
    """Iterate with a progress bar that shows speed and time left.

    Parameters
    ----------
    items, title, unit : what is counted, and how it is called; bytes are "B".
    total : number of items, if `items` doesn't know.
    units_per_item : how many units each item holds (segments in a batch).
    n_updates : lines printed in all when the output isn't a terminal, so that logs stay short.
    """
    is_terminal = sys.stderr.isatty()
    if total is None and isinstance(items, Sized):
        total = len(items)
    every = max(1, (total or 1000) // n_updates) if n_updates else total
    # To tqdm, 1 is True, which writes counts like bytes: 2.00/2.00
    scale: bool | int = unit == "B" or (units_per_item if units_per_item != 1 else False)
    return tqdm(
        items,
        desc=title,
        unit=f" {unit}",
        total=total,
        unit_scale=scale,
        mininterval=0.1,
        maxinterval=10.0 if is_terminal else float("inf"),
        miniters=None if is_terminal else every,
        leave=not is_terminal,
        dynamic_ncols=is_terminal,
        delay=1.0,
    )
