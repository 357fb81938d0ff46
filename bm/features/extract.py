"""Frames of pieces of sound: each distinct piece is computed once and kept in the cache.

Enters: the pieces that all recordings heard. Leaves: files with the frames of each. A piece is kept
as soon as it is done, so that an extraction which was cut short goes on where it stopped.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bm.core.cache import Cache, Claim
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

    Pieces that the cache doesn't have are shared by all processes that need them: each takes those
    that no other has begun, the longest first, and waits for the rest.

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
    # The longest needs the most memory: if there is too little, that shows at once.
    order = sorted(entries.values(), key=lambda entry: (-entry.piece.duration, entry.label))
    while missing := [entry for entry in order if entry.find() is None]:
        with ExitStack() as claims:  # whatever happens, none is kept
            if not _fill(missing, feature, claims):
                missing[0].wait()
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

    def claim(self) -> Claim | None:
        return self.cache.claim(KIND, self.key, self.label)

    def wait(self) -> None:
        self.cache.wait(KIND, self.key, self.label)

    @property
    def folder(self) -> Path:
        folder = self.find()
        if folder is None:
            raise DataError(
                f"The frames of {self.label} vanished from {self.cache.folder} while they were "
                "needed. Start again: only these will be computed."
            )
        return folder


def _fill(entries: list[_Entry], feature: SoundFeature, claims: ExitStack) -> bool:
    """Compute the frames of the entries that no other process has; False if that is none."""
    taken: deque[tuple[_Entry, Claim]] = deque()

    def pieces() -> Iterator[Piece]:
        for entry in entries:
            claim = entry.claim()  # only when the model asks for the next
            if claim is not None:
                claims.callback(claim.release)
                taken.append((entry, claim))
                yield entry.piece

    own = pieces()
    first = next(own, None)
    if first is None:  # found without loading a model
        return False
    results = _frames_of(chain([first], own), feature)
    for frames in progress(results, feature.name, "piece of sound", len(entries)):
        entry, claim = taken.popleft()
        claim.build(partial(_save, _checked(frames, feature, entry.piece)))
    if taken:
        raise ValueError(
            f"{feature.name}: {len(taken)} piece(s) of sound came back without frames."
        )
    return True


def _save(frames: np.ndarray, folder: Path) -> None:
    np.save(folder / FRAMES, frames)


def _checked(frames: np.ndarray, feature: SoundFeature, piece: Piece) -> np.ndarray:
    """Frames in the precision that they are kept in."""
    if frames.ndim != 2 or not len(frames) or frames.shape[1] != feature.dimension:
        raise ValueError(
            f"{feature.name}: frames {frames.shape} should be [n, {feature.dimension}]."
        )
    with np.errstate(over="ignore"):  # said below
        stored = frames.astype(np.float16 if feature.half else np.float32)
    if not np.isfinite(stored).all():
        remedy = " or too large for half precision: set half=false" if feature.half else ""
        raise DataError(f"{feature.name} of {_place(piece)}: frames with NaN{remedy}.")
    return stored


def _frames_of(pieces: Iterable[Piece], feature: SoundFeature) -> Iterator[np.ndarray]:
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
