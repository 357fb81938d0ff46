"""Checkpoint files: plain tensors, numbers and containers, written whole or not at all."""

from pathlib import Path
from typing import Any

import torch

from bm.core.cache import write_atomically

CHECKPOINT = "checkpoint.th"
"""Name of the file in an experiment's folder."""
FORMAT = 1


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace a checkpoint: whoever reads sees the old one or the new one."""
    write_atomically(path, lambda part: torch.save({"format": FORMAT, **state}, part))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it can run code.

    Raises
    ------
    ValueError : the file is missing, damaged, or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise ValueError(f"{path} can't be read as a checkpoint: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} isn't a checkpoint of this version of bm (format {FORMAT}).")
    return state
