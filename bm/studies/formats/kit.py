"""KIT/Yokogawa recordings (`.con`, `.sqd`)."""

import struct
from pathlib import Path

from bm.core.messages import DataError

# Sections of the file: a table at its start has offset, bytes of an item, most items and items.
SYSTEM, ACQUISITION, SAMPLES = 1, 8, 9
TABLE_BYTES = 16 * (SAMPLES + 1)
N_CHANNELS_AT, CONTINUOUS = 12 + 128 + 128, 1


def check_con(path: Path) -> None:
    """Make sure that a file holds all samples that its header announces: MNE reads lost ones as 0.

    Raises
    ------
    DataError : the file is missing, truncated, or no KIT file.
    """
    try:
        with open(path, "rb") as file:
            table = list(struct.iter_unpack("<Iiii", file.read(TABLE_BYTES)))
            file.seek(table[SYSTEM][0] + N_CHANNELS_AT)
            (n_channels,) = struct.unpack("<i", file.read(4))
            file.seek(table[ACQUISITION][0])
            kind, _, _, n_samples = struct.unpack("<idii", file.read(20))
    except OSError as error:
        raise DataError(f"{path} is missing or can't be read ({error.strerror}).") from error
    except (struct.error, IndexError) as error:
        raise DataError(
            f"{path} is truncated, or no KIT file: it has no header. Download or copy it again."
        ) from error
    if kind != CONTINUOUS:
        raise DataError(f"{path} is no continuous KIT recording (acquisition type {kind}).")
    offset, item_bytes, _, _ = table[SAMPLES]
    n_bytes = n_samples * n_channels * (item_bytes if item_bytes in (2, 4) else 2)
    missing = offset + n_bytes - path.stat().st_size
    if n_bytes <= 0:
        raise DataError(f"{path} has no samples.")
    if missing > 0:
        raise DataError(
            f"{path} is truncated: {missing} of {n_bytes} bytes of samples are missing. "
            "Download or copy it again."
        )
