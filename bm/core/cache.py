"""A disk cache that is safe by construction.

An entry is a folder of files, named by a digest of everything that shaped its content. It is
written under a temporary name, flushed to disk, then renamed: a reader sees all of it or nothing.
One lock per entry lets any number of cold processes ask at once; one builds, the others wait.
When a process first reads an entry, sizes and times of its files are compared with those that they
were written with, and checksums where a time differs; a corrupt entry is set aside and rebuilt.
"""

import errno
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bm.core.hashing import digest, file_checksum
from bm.core.messages import DataError

logger = logging.getLogger(__name__)

MANIFEST = "entry.json"
REMEDIES = {
    errno.ENOSPC: "the disk is full. Free some space, or choose another folder with cache=PATH "
    "(for results: dora.dir=PATH). What was finished is kept; the same command goes on from there.",
    errno.EDQUOT: "your disk quota is used up. Free some space, or choose another folder with "
    "cache=PATH. What was finished is kept; the same command goes on from there.",
    errno.EROFS: "the file system is read-only. Choose a writable folder with cache=PATH.",
    errno.EACCES: "permission denied. Choose a folder of your own with cache=PATH.",
}
FULL_BELOW = 1 << 16
"""Bytes: a disk with less room than this is what made a write fail, whatever the error says."""


class Cache:
    """Content-addressed store of computed files.

    Parameters
    ----------
    folder : where entries live; made when the first one is built.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).absolute()
        self._verified: set[Path] = set()

    def entry(
        self,
        kind: str,
        key: Mapping[str, Any],
        build: Callable[[Path], None],
        label: str = "",
    ) -> Path:
        """Folder of the entry for `key`, built if it isn't there.

        Parameters
        ----------
        kind : family of entries, a sub-folder ("signals", "features", ...).
        key : every argument that changes the result, with the version of the code that makes it.
        build : called with an empty folder, which it must fill.
        label : readable start of the folder's name.

        Raises
        ------
        OSError : if the disk is full or not writable; nothing half-written is left behind.
        """
        path = self._path(kind, key, label)
        if self._is_sound(path):
            return path
        with self.locked(kind, path.name):
            if not self._is_sound(path):  # nobody built it while this process waited
                self._build(path, dict(key), build)
        return path

    def claim(self, kind: str, key: Mapping[str, Any], label: str = "") -> "Claim | None":
        """The right to build the entry for `key`; None if it is there, or another process has it.

        For work that several processes share: what one has claimed the others leave out. Hold no
        claim while waiting for another process (`wait`).
        """
        path = self._path(kind, key, label)
        if self._is_sound(path):
            return None
        with self._explaining():
            lock = self._lock(kind, path.name)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return None
        if self._is_sound(path):  # built since it was looked for
            lock.release()
            return None
        return Claim(self, path, dict(key), lock)

    def wait(self, kind: str, key: Mapping[str, Any], label: str = "") -> None:
        """Wait until no process is building the entry for `key`."""
        with self.locked(kind, self._path(kind, key, label).name):
            pass

    def find(self, kind: str, key: Mapping[str, Any], label: str = "") -> Path | None:
        """Folder of the entry for `key`, or None if it isn't there or is corrupt."""
        path = self._path(kind, key, label)
        return path if self._is_sound(path) else None

    @contextmanager
    def locked(self, kind: str, name: str) -> Iterator[None]:
        """Do what `name` stands for in one process at a time; the others wait.

        Raises
        ------
        OSError : if the disk is full or not writable, with the remedy.
        """
        with self._explaining(), self._lock(kind, name):
            yield

    def _lock(self, kind: str, name: str) -> FileLock:
        folder = self.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f".{name}.lock")

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Errors of writing here come with their remedy."""
        try:
            yield
        except OSError as error:
            if not _is_about(error, self.folder):
                raise
            raise _explained(error.errno, self.folder) from error

    def _path(self, kind: str, key: Mapping[str, Any], label: str) -> Path:
        name = "-".join(filter(None, [_readable(label), digest([kind, dict(key)])]))
        return self.folder / kind / name

    def _build(self, path: Path, key: dict[str, Any], build: Callable[[Path], None]) -> None:
        """Build an entry; this process must hold its lock."""
        self._set_aside(path)
        for stale in path.parent.glob(f".tmp-{path.name}-*"):
            shutil.rmtree(stale)  # left by a process that died: this one holds the entry's lock
        temporary = path.parent / f".tmp-{path.name}-{uuid.uuid4().hex[:8]}"
        temporary.mkdir()
        try:
            build(temporary)
            files = {file.name: _about(file) for file in sorted(temporary.iterdir())}
            (temporary / MANIFEST).write_text(json.dumps({"key": key, "files": files}, indent=1))
            for file in temporary.iterdir():
                _flush(file)
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
        except BaseException as error:
            is_full = _is_full(error, path.parent)  # asked before the files go
            shutil.rmtree(temporary, ignore_errors=True)
            if is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        self._verified.add(path)

    def _is_sound(self, path: Path) -> bool:
        if not path.is_dir():
            return False
        if path in self._verified:
            return True
        fault = find_fault(path, trust_times=True)
        if fault:
            logger.warning("Cache entry %s is corrupt (%s): it will be rebuilt.", path, fault)
            return False
        self._verified.add(path)
        return True

    def _set_aside(self, path: Path) -> None:
        if path.exists():
            aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
            os.replace(path, aside)
            logger.warning("Corrupt cache entry kept for inspection as %s.", aside)


class Claim:
    """The right to build an entry of a cache, until it is built or released."""

    def __init__(self, cache: Cache, path: Path, key: dict[str, Any], lock: FileLock):
        self._cache, self._path, self._key, self._held = cache, path, key, lock

    def build(self, build: Callable[[Path], None]) -> Path:
        """Build the entry, as `Cache.entry` does; the claim ends."""
        try:
            with self._cache._explaining():
                self._cache._build(self._path, self._key, build)
        finally:
            self.release()
        return self._path

    def release(self) -> None:
        """Let others build it."""
        self._held.release()


def find_fault(path: Path, with_checksums: bool = True, trust_times: bool = False) -> str | None:
    """Say what is wrong with an entry's files, or None if they are as they were written.

    Parameters
    ----------
    path : folder of the entry.
    with_checksums : read the files, too.
    trust_times : but not those that haven't been modified since, as far as their times tell.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, expected in manifest["files"].items():
            file = path / name
            stat = file.stat()
            if stat.st_size != expected["size"]:
                return f"{name} has {stat.st_size} bytes instead of {expected['size']}"
            if trust_times and stat.st_mtime_ns == expected.get("modified"):
                continue
            if with_checksums and file_checksum(file) != expected["xxh3"]:
                return f"{name} has another checksum"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    write_atomically(path, lambda file: file.write_text(json.dumps(value, indent=1)))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, and rename it.

    Raises
    ------
    OSError : the disk is full; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        is_full = _is_full(error, path.parent)
        temporary.unlink(missing_ok=True)
        if is_full:
            raise _explained(errno.ENOSPC, path.parent) from error
        raise


def _about(file: Path) -> dict[str, Any]:
    """What `find_fault` compares a file with."""
    checksum, stat = file_checksum(file), file.stat()
    return {"size": stat.st_size, "modified": stat.st_mtime_ns, "xxh3": checksum}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _readable(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in label)[:80]


def _is_full(error: BaseException, folder: Path) -> bool:
    """Whether a write failed for want of room: some libraries hide it, or say it their own way."""
    if isinstance(error, DataError) or not isinstance(error, Exception):
        return False
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    return shutil.disk_usage(folder).free < FULL_BELOW


def _is_about(error: OSError, folder: Path) -> bool:
    """Whether the error comes from writing to `folder`, and not from reading something else."""
    if error.errno not in REMEDIES:
        return False
    return error.filename is None or Path(os.fsdecode(error.filename)).is_relative_to(folder)


def _explained(number: int | None, folder: Path) -> OSError:
    return OSError(number, f"Cannot write to {folder}: {REMEDIES[number or 0]}")
