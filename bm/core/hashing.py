"""Digests that are the same in every process and on every machine."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash


def digest(value: Any, length: int = 16) -> str:
    """Hex digest of anything JSON can express; dictionaries in any order give the same one."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def text_id(*parts: object) -> int:
    """Positive 63-bit integer that names a text, or a tuple of texts, in integer tensors."""
    joined = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(joined.encode()).digest()[:8], "big") >> 1


def file_checksum(path: Path) -> str:
    """Fast checksum (xxh3, 128 bits) of a file's content."""
    hasher = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            hasher.update(chunk)
    return hasher.hexdigest()


def array_checksum(arrays: Iterable[np.ndarray]) -> str:
    """Fast checksum (xxh3, 128 bits) of arrays: their types, shapes and values."""
    hasher = xxhash.xxh3_128()
    for array in arrays:
        hasher.update(f"{array.dtype} {array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).data)
    return hasher.hexdigest()


def file_fingerprint(paths: Iterable[Path]) -> list[list[Any]]:
    """Name, size and modification time of source files: changes when one of them is replaced."""
    stats = [(path, path.stat()) for path in map(Path, paths)]
    return [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in stats]
