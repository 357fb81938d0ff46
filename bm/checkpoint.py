"""Checkpoint files: plain tensors, numbers and containers, written whole or not at all."""

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch

from bm.core.cache import write_atomically

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.th"
"""Name of the file in an experiment's folder."""
DONE = "done"
"""Name of an empty file beside it: the experiment has been trained to its end."""
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
        _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise ValueError(f"{path} can't be read as a checkpoint: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} isn't a checkpoint of this version of bm (format {FORMAT}).")
    return state


def _check_sums(path: Path) -> None:
    """Compare the checksums that torch writes, and doesn't look at when it reads."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} has another checksum than when it was written")


def check_same_data(path: Path, state: dict[str, Any], here: dict[str, Any]) -> None:
    """Check that a checkpoint was trained on the recordings and subjects that are here.

    Where it doesn't name them, because it was imported, their numbers must agree: recordings by
    their scales, subjects by the weights that they have of their own. Another precision is no
    error, but logged.

    Parameters
    ----------
    path : of the checkpoint.
    state : its content.
    here : state of the solver that is to take it.

    Raises
    ------
    ValueError : they are others.
    """
    _compare_precision(path, state, here["precision"])
    if state["recordings"] is not None:
        if state["recordings"] != here["recordings"]:
            raise ValueError(
                f"{path} was trained on {len(state['recordings'])} recordings, but "
                f"{len(here['recordings'])} (or others) are here now. Bring the data back, or "
                "start anew with dora run --clear."
            )
        return
    old, new = state["scaler"]["centre"], here["scaler"]["centre"]
    if old.shape != new.shape:
        raise ValueError(
            f"{path} was trained on {old.shape[0]} recordings of up to {old.shape[1]} sensors, but "
            f"{new.shape[0]} of up to {new.shape[1]} are here now. It was imported, so they are "
            "known by their order alone: all that it was trained on must be there."
        )
    for name, weight in here["models"].items():
        known = state["models"].get(name)
        if known is not None and known.shape != weight.shape:
            raise ValueError(
                f"{path}: {name} has the shape {tuple(known.shape)}, but the data that are here "
                f"need {tuple(weight.shape)}. Are all subjects there that it was trained on?"
            )


def _compare_precision(path: Path, state: dict[str, Any], here: str) -> None:
    """Say so where training was in another precision: with "auto" that is up to the machine."""
    configured = state.get("config", {}).get("optim", {})  # earlier versions kept no other trace
    before = state.get("precision", configured.get("precision", here))
    if before != here:
        logger.warning("%s was trained in %s; from here on it is %s.", path, before, here)
