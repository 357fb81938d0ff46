"""Sound files: how long they last, and the samples between two moments of them.

Enters: a path (wav, flac, ogg, mp3). Leaves: seconds, or a mono tensor at the rate asked for.
Every fault of a file is a `DataError` that names it.
"""

import struct
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import julius
import numpy as np
import soundfile
import torch

from bm.core.hashing import file_checksum
from bm.core.messages import DataError

SAMPLE_RATE = 16_000
END_TOLERANCE = 0.1
"""Seconds by which an event may outlast its file (rounded durations): they become silence."""

_UNKNOWN_LENGTH = 0x7FFF0000  # what programs that write to a pipe put into a wav header
_WHOLE_DECODED = (".mp3",)  # formats in which a seek does not land on the exact sample
_OGG_PAGE_BYTES = 65_307  # the longest page there can be
_OGG_HEADER_BYTES = 27


def sound_duration(path: str | Path) -> float:
    """Length of a sound file in seconds.

    Raises
    ------
    DataError : the file is missing, truncated or not a sound file.
    """
    n_frames, sample_rate = _length(*_identity(path))
    return n_frames / sample_rate


def read_sound(
    path: str | Path, offset: float, duration: float, sample_rate: int = SAMPLE_RATE
) -> torch.Tensor:
    """Read a stretch of a sound file as mono float32 samples [n] at `sample_rate`.

    Only the samples between `offset` and `offset + duration` are read, and they are resampled on
    their own: what the file holds outside of them has no influence on the result. Channels are
    averaged.

    Parameters
    ----------
    path : wav, flac, ogg or mp3.
    offset, duration : seconds in the file, rounded to its nearest sample; up to `END_TOLERANCE`
        beyond its end is silence.
    sample_rate : Hz of the result, by windowed-sinc interpolation (julius).

    Raises
    ------
    DataError : the file is missing, truncated, unreadable or too short, or contains NaN.
    """
    if not (offset >= 0 and duration >= 0):
        raise ValueError(f"{path}: offset={offset} and duration={duration} s must not be negative.")
    identity = _identity(path)
    n_frames, native_rate = _length(*identity)
    first, last = round(offset * native_rate), round((offset + duration) * native_rate)
    if last > n_frames + END_TOLERANCE * native_rate:
        raise DataError(
            f"{path}: lasts {n_frames / native_rate:.3f} s, but {offset:.3f} to "
            f"{offset + duration:.3f} s are asked for. Is it the right file, and complete?"
        )
    samples = np.zeros(last - first, dtype=np.float32)
    begin, end = min(first, n_frames), min(last, n_frames)
    if identity[0].suffix.lower() in _WHOLE_DECODED:
        samples[: end - begin] = _decode(*identity)[begin:end]
    elif end > begin:
        samples[: end - begin] = _read_frames(identity[0], begin, end)
    if not np.isfinite(samples).all():
        raise DataError(
            f"{path}: NaN or infinite samples between {offset} and {offset + duration} s."
        )
    if native_rate == sample_rate or not len(samples):
        return torch.from_numpy(samples)
    return julius.resample_frac(torch.from_numpy(samples), native_rate, sample_rate)


def sound_digest(path: str | Path) -> str:
    """Hash a file's content: one sound has one digest, under any name and on any machine."""
    return _digest(*_identity(path))


def _identity(path: str | Path) -> tuple[Path, int, int]:
    """Path, size and modification time: what the caches of this process go by."""
    path = Path(path)
    try:
        stat = path.stat()
    except OSError as error:
        hint = (
            " It is a link to content that was not downloaded (git annex): run `datalad get`."
            if path.is_symlink()
            else ""
        )
        raise DataError(f"Sound file {path} is missing.{hint}") from error
    if path.is_dir():
        raise DataError(f"Sound file {path} is a folder.")
    return path.absolute(), stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int) -> str:
    return file_checksum(path)


@lru_cache(maxsize=4096)
def _length(path: Path, size: int, modified: int) -> tuple[int, int]:
    """Number of frames that are really there, and their rate in Hz."""
    _check_complete(path, size)
    try:
        with soundfile.SoundFile(path) as file:
            n_frames, sample_rate = file.frames, file.samplerate
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise _unreadable(path, size, error) from error
    if path.suffix.lower() in _WHOLE_DECODED:
        n_frames = len(_decode(path, size, modified))
    elif n_frames:
        _read_frames(path, n_frames - 1, n_frames)  # fails if the end is not there
    if not n_frames:
        raise DataError(f"{path}: the sound file is empty.")
    return n_frames, sample_rate


@lru_cache(maxsize=1)
def _decode(path: Path, size: int, modified: int) -> np.ndarray:
    """All samples, mono: kept, because the pieces of one file are read one after the other."""
    try:
        samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, MemoryError) as error:  # a false length
        raise _unreadable(path, size, error) from error
    return samples.mean(axis=1)


def _read_frames(path: Path, begin: int, end: int) -> np.ndarray:
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(begin)
            samples = file.read(end - begin, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise _unreadable(path, path.stat().st_size, error) from error
    if len(samples) < end - begin:
        raise DataError(
            f"{path} is truncated: it should go on to sample {end}, but ends at "
            f"{begin + len(samples)}. Download or copy it again."
        )
    return samples.mean(axis=1)


def _check_complete(path: Path, size: int) -> None:
    """Raise for a file shorter than it says it is: most such files open without complaint."""
    n_missing = {b"RIFF": _missing_from_wav, b"OggS": _missing_from_ogg}
    with open(path, "rb") as file:
        find = n_missing.get(file.read(4), _missing_from_mp3)
        missing = find(file, size)
    if missing > 0:
        raise DataError(
            f"{path} is truncated: at least {missing} bytes are missing by its own header. "
            "Download or copy it again."
        )


def _missing_from_wav(file: BinaryIO, size: int) -> int:
    position = 12
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        position += 8
        if name == b"data":
            return position + length - size if length < _UNKNOWN_LENGTH else 0
        position += length + length % 2  # chunks begin at even places
    return 0


def _missing_from_ogg(file: BinaryIO, size: int) -> int:
    """The file ends with a page; that one must be whole."""
    begin = max(0, size - _OGG_PAGE_BYTES)
    file.seek(begin)
    tail = file.read()
    page = tail.rfind(b"OggS")
    n_parts = tail[page + _OGG_HEADER_BYTES - 1] if len(tail) >= page + _OGG_HEADER_BYTES else 0
    parts = tail[page + _OGG_HEADER_BYTES :][:n_parts]
    return page + _OGG_HEADER_BYTES + n_parts + sum(parts) - len(tail)


def _missing_from_mp3(file: BinaryIO, size: int) -> int:
    """Encoders leave the number of bytes in a first frame without sound (Xing, Info)."""
    file.seek(0)
    head = file.read(10)
    begin = 0
    if head.startswith(b"ID3") and len(head) == 10:  # a tag of song and artist; 7 bits a byte
        begin = 10 + sum(
            byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
    file.seek(begin)
    frame = file.read(200)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if not frame.startswith(b"\xff") or place < 0 or len(frame) < place + 16:
        return 0
    flags, *numbers = struct.unpack(">III", frame[place + 4 : place + 16])
    has_frames, has_bytes = flags & 1, flags & 2
    return begin + numbers[1 if has_frames else 0] - size if has_bytes else 0


def _unreadable(path: Path, size: int, error: Exception) -> DataError:
    with open(path, "rb") as file:
        start = file.read(64).lstrip()
    if not size:
        what = "it is empty"
    elif start.startswith((b"<", b"version https://git-lfs", b"/annex/")):
        what = "it holds text, such as the page of a failed download"
    else:
        what = "it is truncated, or no sound file"
    return DataError(
        f"Cannot read the sound file {path}: {what} ({error}). Download or copy it again."
    )
