"""Frames of pieces of sound: each distinct piece is computed once and kept in the cache.

Enters: the pieces that all recordings heard. Leaves: files with the frames of each. A piece is kept
as soon as it is done, so that an extraction which was cut short goes on where it stopped.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bm.core.cache import Cache
from bm.core.hashing import digest
from bm.core.messages import DataError
from bm.core.progress import progress
from bm.features.base import SoundFeature
from bm.recordings.sound import read_sound

KIND = "features"
FRAMES = "frames.npy"


@dataclass(frozen=True)
class Piece:
    """A stretch of a sound; the same stretch of a copy of the file, under any name, equals it.

    Attributes
    ----------
    content : digest of the file.
    offset, duration : seconds in the file.
    path : where to read it.
    """

    content: str
    offset: float
    duration: float
    path: Path = field(compare=False)


def extract_frames(
    feature: SoundFeature, pieces: Iterable[Piece], cache: Cache
) -> dict[Piece, Path]:
    """Files with the frames [n, F] of each piece.

    What the cache doesn't have is computed by one process; others that need the same feature wait.

    Raises
    ------
    DataError : a piece can't be read, is too short for the feature, or gives values that are not
        finite.
    """
    arguments = {
        "feature": feature.name,
        "version": feature.version,
        "arguments": feature.key,
        "half": feature.half,
    }
    entries = {piece: _Entry(feature.name, arguments, piece, cache) for piece in pieces}
    missing = [entry for entry in entries.values() if entry.find() is None]
    if missing:
        with cache.locked(KIND, f"{feature.name}-{digest(arguments)}"):
            _fill([entry for entry in missing if entry.find() is None], feature)
    return {piece: entry.folder / FRAMES for piece, entry in entries.items()}


class _Entry:
    """Place in the cache for the frames of a piece."""

    def __init__(self, name: str, arguments: dict[str, Any], piece: Piece, cache: Cache):
        self.piece = piece
        place = {"sound": piece.content, "offset": piece.offset, "duration": piece.duration}
        self.key = {**arguments, **place}
        self.label = f"{name}-{piece.path.stem}-{piece.offset:.3f}"
        self.cache = cache

    def find(self) -> Path | None:
        return self.cache.find(KIND, self.key, self.label)

    @property
    def folder(self) -> Path:
        folder = self.find()
        if folder is None:
            raise DataError(
                f"The frames of {self.label} vanished from {self.cache.folder} while they were "
                "needed. Start again: only these will be computed."
            )
        return folder

    def write(self, frames: np.ndarray) -> None:
        def build(folder: Path) -> None:
            np.save(folder / FRAMES, frames)

        self.cache.entry(KIND, self.key, build, self.label)


def _fill(entries: list[_Entry], feature: SoundFeature) -> None:
    """Compute the frames of the entries, the longest piece first: it needs the most memory."""
    entries = sorted(entries, key=lambda entry: (-entry.piece.duration, entry.label))
    results = _frames_of([entry.piece for entry in entries], feature)
    done = zip(entries, results, strict=True)
    for entry, frames in progress(done, feature.name, "piece of sound", len(entries)):
        if frames.ndim != 2 or not len(frames) or frames.shape[1] != feature.dimension:
            raise ValueError(
                f"{feature.name}: frames {frames.shape} should be [n, {feature.dimension}]."
            )
        with np.errstate(over="ignore"):  # said below
            stored = frames.astype(np.float16 if feature.half else np.float32)
        if not np.isfinite(stored).all():
            remedy = " or too large for half precision: set half=false" if feature.half else ""
            raise DataError(f"{feature.name} of {_place(entry.piece)}: frames with NaN{remedy}.")
        entry.write(stored)


def _frames_of(pieces: Sequence[Piece], feature: SoundFeature) -> Iterator[np.ndarray]:
    """Frames of each piece; an error names the piece that was read last, which is its cause."""
    place = ""

    def sounds() -> Iterator[torch.Tensor]:
        nonlocal place
        for piece in pieces:
            place = _place(piece)
            yield read_sound(piece.path, piece.offset, piece.duration, feature.input_rate)

    try:
        yield from feature.frames_of_many(sounds())
    except DataError as error:
        raise DataError(f"{feature.name} of {place}: {error}") from error


def _place(piece: Piece) -> str:
    return f"{piece.path} at {piece.offset} s"
