"""A disk cache that is safe by construction.

An entry is a folder of files, named by a digest of everything that shaped its content. It is
written under a temporary name, flushed to disk, then renamed: a reader sees all of it or nothing.
One lock per entry lets any number of cold processes ask at once; one builds, the others wait.
Checksums are verified when a process first reads an entry; a corrupt one is set aside and rebuilt.
"""

import errno
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from bm.core.hashing import digest, file_checksum

logger = logging.getLogger(__name__)

MANIFEST = "entry.json"


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
        name = "-".join(filter(None, [_readable(label), digest([kind, dict(key)])]))
        path = self.folder / kind / name
        if self._is_sound(path):
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent / f".{name}.lock"):
                if not self._is_sound(path):  # nobody built it while this process waited
                    self._set_aside(path)
                    self._build(path, dict(key), build)
        except OSError as error:
            raise _explained(error, self.folder) from error
        self._verified.add(path)
        return path

    def _build(self, path: Path, key: dict[str, Any], build: Callable[[Path], None]) -> None:
        for stale in path.parent.glob(f".tmp-{path.name}-*"):
            shutil.rmtree(stale)  # left by a process that died: this one holds the entry's lock
        temporary = path.parent / f".tmp-{path.name}-{uuid.uuid4().hex[:8]}"
        temporary.mkdir()
        try:
            build(temporary)
            files = {
                file.name: {"size": file.stat().st_size, "xxh3": file_checksum(file)}
                for file in sorted(temporary.iterdir())
            }
            write_json(temporary / MANIFEST, {"key": key, "files": files})
            for file in temporary.iterdir():
                _flush(file)
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _is_sound(self, path: Path) -> bool:
        if not path.is_dir():
            return False
        if path in self._verified:
            return True
        fault = find_fault(path)
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


def find_fault(path: Path) -> str | None:
    """Say what is wrong with an entry's files, or None if they are as they were written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, expected in manifest["files"].items():
            file = path / name
            if file.stat().st_size != expected["size"]:
                return f"{name} has {file.stat().st_size} bytes instead of {expected['size']}"
            if file_checksum(file) != expected["xxh3"]:
                return f"{name} has another checksum"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    write_atomically(path, lambda file: file.write_text(json.dumps(value, indent=1)))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, and rename it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _readable(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in label)[:80]


def _explained(error: OSError, folder: Path) -> OSError:
    remedies = {
        errno.ENOSPC: "the disk is full. Free some space or choose another folder with cache=PATH",
        errno.EDQUOT: "your disk quota is used up. Free some space or choose cache=PATH",
        errno.EROFS: "the file system is read-only. Choose a writable folder with cache=PATH",
        errno.EACCES: "permission denied. Choose a folder of your own with cache=PATH",
    }
    if error.errno not in remedies:
        return error
    return OSError(
        error.errno,
        f"Cannot write to the cache {folder}: {remedies[error.errno]}. "
        "Finished entries are kept; the same command goes on from there.",
    )
