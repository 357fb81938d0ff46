"""One progress bar for everything that takes more than a moment."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], title: str, unit: str = "it", total: int | None = None) -> "tqdm[Item]":
    """Iterate with a progress bar; off a terminal it refreshes rarely, so that logs stay short."""
    is_terminal = sys.stderr.isatty()
    return tqdm(
        items,
        desc=title,
        unit=f" {unit}",
        total=total,
        mininterval=0.2 if is_terminal else 30.0,
        leave=is_terminal,
        dynamic_ncols=is_terminal,
        delay=1.0,
    )
