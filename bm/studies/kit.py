"""KIT/Yokogawa recordings (`.con`, `.sqd`)."""

import struct
from pathlib import Path

from bm.core.messages import DataError

SAMPLES = 9
"""Section of the file that holds the samples."""


def check_con(path: Path) -> None:
    """Make sure that a file holds all samples that its header announces: MNE reads lost ones as 0.

    Raises
    ------
    DataError : the file is missing, truncated, or no KIT file.
    """
    try:
        with open(path, "rb") as file:
            table = file.read(16 * (SAMPLES + 1))
    except OSError as error:
        raise DataError(f"{path} is missing or can't be read ({error.strerror}).") from error
    if len(table) < 16 * (SAMPLES + 1):
        raise DataError(f"{path} is truncated: {len(table)} bytes. Download or copy it again.")
    offset, item_bytes, _, n_items = struct.unpack_from("<Iiii", table, 16 * SAMPLES)
    missing = offset + item_bytes * n_items - path.stat().st_size
    if item_bytes < 1 or n_items < 1:
        raise DataError(f"{path} is no KIT recording: it has no samples.")
    if missing > 0:
        raise DataError(
            f"{path} is truncated: {missing} of {item_bytes * n_items} bytes of samples are "
            "missing. Download or copy it again."
        )
