"""Zip archives, unpacked so that nothing is written where it shouldn't be.

Each file appears whole under its name or not at all, so a run that was killed goes on.
"""

import errno
import logging
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bm.core.messages import DataError
from bm.core.progress import progress
from bm.studies.downloads.manifest import RemoteFile
from bm.studies.downloads.paths import BELOW, make_folder, matches, safe_path

logger = logging.getLogger(__name__)

AGAIN = "Delete it, and run the same command again to get it anew."
DECODING = (None, errno.EINVAL)
"""Numbers of the OSErrors that come of damaged content (bad places, bz2), not of a disk."""


@dataclass(frozen=True)
class Archive:
    """Which archives to unpack, and where.

    Attributes
    ----------
    pattern : names of the archives, in the folder of the data.
    into : folder below that for the content; "" is the folder itself. If not given, a content that
        is all in one folder keeps it, another one gets a folder named like the archive.
    members : patterns of what to unpack.
    """

    pattern: str
    into: str | None = None
    members: tuple[str, ...] = (BELOW,)


def unpack(archive: Path, root: Path, rule: Archive) -> list[RemoteFile]:
    """Unpack an archive; returns what came out of it, with CRC-32 checksums.

    Raises
    ------
    DataError : it is cut off or encrypted, or holds a link or a path that leads out of `root`.
    OSError : the disk is full or not writable.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = _members(file, rule)
            targets = _targets(list(members), archive.stem, rule.into)
            infos = list(members.values())
            _check_room(infos, root)
            for info, target in zip(
                progress(infos, f"Unpacking {archive.name}", "files"), targets, strict=True
            ):
                _extract(file, info, root, target)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DECODING:
            raise
        raise DataError(f"{archive} is damaged or cut off ({error}). {AGAIN}") from error
    except (RuntimeError, NotImplementedError) as error:
        raise DataError(f"{archive} can't be unpacked: {error}. Unpack it by hand.") from error
    logger.info("%s: %d files unpacked.", archive, len(targets))
    return [_as_file(info, target) for info, target in zip(infos, targets, strict=True)]


def _members(file: zipfile.ZipFile, rule: Archive) -> dict[str, zipfile.ZipInfo]:
    """What to unpack, by safe path, without what macOS leaves behind."""
    members = {}
    for info in file.infolist():
        path = safe_path(info.filename)
        *folders, name = path.split("/")
        if info.is_dir() or "__MACOSX" in folders or name.startswith("._") or name == ".DS_Store":
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DataError(f"{file.filename} holds a link, {path}: unpack it by hand.")
        if matches(path, rule.members):
            members[path] = info
    return members


def _targets(paths: Sequence[str], stem: str, into: str | None) -> list[str]:
    """Where each member goes, below the root."""
    tops = {path.partition("/")[0] if "/" in path else "" for path in paths}
    if into is None:
        into = stem if "" in tops or len(tops) > 1 else ""
    elif into and tops == {into}:
        into = ""
    return [f"{into}/{path}" if into else path for path in paths]


def _check_room(members: Sequence[zipfile.ZipInfo], root: Path) -> None:
    needed = sum(info.file_size for info in members)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{root}: {needed / 1e9:.1f} GB come out of the archive, and {free / 1e9:.1f} GB are "
            "free. Free some space; the same command goes on from there.",
        )


def _extract(file: zipfile.ZipFile, info: zipfile.ZipInfo, root: Path, path: str) -> None:
    """Write one member, unless it is there."""
    target = root / path
    if _as_file(info, path).find_fault(target, thorough=True) is None:
        return
    make_folder(target.parent, root)
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    with file.open(info) as source, open(part, "xb") as stream:
        shutil.copyfileobj(source, stream, 1 << 20)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, target)


def _as_file(info: zipfile.ZipInfo, path: str) -> RemoteFile:
    return RemoteFile(path, size=info.file_size, hashes={"crc32": f"{info.CRC:08x}"})
