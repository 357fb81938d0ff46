"""What is known of the files of a study: the manifest, kept beside them.

Enters: lists of files, from sources, archives or the disk. Leaves: for each file whether it is
there and sound, without asking anybody.
"""

import hashlib
import json
import logging
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bm.core.cache import write_json
from bm.studies.downloads.paths import FOLDER, matches, safe_path

logger = logging.getLogger(__name__)

ALGORITHMS = ("sha256", "sha512", "sha1", "md5", "crc32")
"""Checksums that are understood, the one to be compared first."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its source describes it.

    Attributes
    ----------
    path : below the root of the data, with slashes.
    url : None if it came by hand, by a link or out of an archive.
    size : bytes, if known.
    hashes : hexadecimal checksums by algorithm, as far as known.
    """

    path: str
    url: str | None = None
    size: int | None = None
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def is_unknown(self) -> bool:
        """Whether there is nothing to tell it by."""
        return self.size is None and not self.hashes

    def find_fault(self, file: Path, thorough: bool = False) -> str | None:
        """Say what is wrong with `file`, or None if it is this one as far as can be told.

        Parameters
        ----------
        file : where it should be.
        thorough : compare the checksum too, which reads the whole file.
        """
        if not file.is_file():
            return "a link to nothing" if file.is_symlink() else "missing"
        size = file.stat().st_size
        if self.size is not None and size != self.size:
            return f"{size} bytes instead of {self.size}"
        if self.is_unknown:
            return "not compared with its source yet"
        if thorough or self.size is None:
            algorithm = next((name for name in ALGORITHMS if name in self.hashes), None)
            if algorithm and checksum(file, algorithm) != self.hashes[algorithm].lower():
                return f"another {algorithm} checksum"
        return None


@dataclass
class Listing:
    """Files of a source that fit the patterns; whatever else it has is unknown."""

    patterns: list[str]
    files: dict[str, RemoteFile]


@dataclass
class Unpacked:
    """What came out of an archive of `size` bytes."""

    size: int
    files: list[RemoteFile]


class Manifest:
    """Files of a study, by source, and what came out of its archives.

    Parameters
    ----------
    root : folder of the data.
    """

    def __init__(self, root: Path):
        self.root = root
        self.file = root / FOLDER / "manifest.json"
        self.listings: dict[str, Listing] = {}
        self.unpacked: dict[str, Unpacked] = {}
        self._sound: set[tuple[object, ...]] = set()  # files whose checksum was right
        if self.file.exists():
            try:
                self._read()
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                logger.warning("%s is unreadable (%s): made anew.", self.file, error)
                self.listings, self.unpacked = {}, {}

    def files(self, source: str, patterns: Iterable[str]) -> list[RemoteFile] | None:
        """Files of a source that fit `patterns`; None if these were never asked for."""
        patterns = list(patterns)
        listing = self.listings.get(source)
        if listing is None or not all(
            asked in listing.patterns or matches(asked, listing.patterns) for asked in patterns
        ):
            return None
        return [file for file in listing.files.values() if matches(file.path, patterns)]

    def add(self, source: str, patterns: Iterable[str], files: Iterable[RemoteFile]) -> None:
        """Take note of all files of a source that fit `patterns`; others of old are forgotten."""
        patterns = list(patterns)
        listing = self.listings.setdefault(source, Listing([], {}))
        listing.patterns = list(dict.fromkeys([*listing.patterns, *patterns]))
        others = {path: f for path, f in listing.files.items() if not matches(path, patterns)}
        listing.files = others | {file.path: file for file in files}

    def update(self, source: str, file: RemoteFile) -> None:
        """Take note of what is known now of a file."""
        self.listings[source].files[file.path] = file

    def find_fault(self, file: RemoteFile, thorough: bool = False) -> str | None:
        """Say what is wrong with a file; an archive need not be there once it is unpacked."""
        record = self.unpacked.get(file.path)
        if record and file.size in (None, record.size) and self.is_unpacked(file.path, thorough):
            return None
        key = (file.path, file.size, *file.hashes.items())
        if thorough and key in self._sound:
            return None
        fault = file.find_fault(self.root / file.path, thorough)
        if thorough and fault is None:
            self._sound.add(key)
        return fault

    def is_unpacked(self, archive: str, thorough: bool = False) -> bool:
        """Whether all that came out of an archive is there, and out of the one that is there."""
        record = self.unpacked.get(archive)
        file = self.root / archive
        if record is None or (file.exists() and file.stat().st_size != record.size):
            return False
        return not any(self.find_fault(member, thorough) for member in record.files)

    def save(self) -> None:
        """Write the manifest, in one step."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "sources": {
                name: {"patterns": listing.patterns, "files": _to_json(listing.files.values())}
                for name, listing in self.listings.items()
            },
            "unpacked": {
                name: {"size": record.size, "files": _to_json(record.files)}
                for name, record in self.unpacked.items()
            },
        }
        write_json(self.file, content)

    def _read(self) -> None:
        content = json.loads(self.file.read_text(encoding="utf-8"))
        for name, listing in content["sources"].items():
            self.add(name, listing["patterns"], _from_json(listing["files"]))
        for name, record in content["unpacked"].items():
            self.unpacked[name] = Unpacked(record["size"], _from_json(record["files"]))


def checksum(file: Path, algorithm: str) -> str:
    """Hexadecimal checksum of a file's content."""
    with open(file, "rb") as stream:
        if algorithm != "crc32":
            return hashlib.file_digest(stream, algorithm).hexdigest()
        value = 0
        while chunk := stream.read(1 << 20):
            value = zlib.crc32(chunk, value)
        return f"{value:08x}"


def _from_json(entries: Iterable[dict[str, Any]]) -> list[RemoteFile]:
    """Files of a manifest, which whoever can write to the folder can have written."""
    return [RemoteFile(**{**entry, "path": safe_path(entry["path"])}) for entry in entries]


def _to_json(files: Iterable[RemoteFile]) -> list[dict[str, object]]:
    return [
        {key: value for key, value in asdict(file).items() if value not in (None, {})}
        for file in files
    ]
