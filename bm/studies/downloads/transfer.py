"""One file from its source to its place, whatever happens on the way.

Bytes are collected in ``NAME.part``; a transfer that was cut off goes on there, if the source still
has the same version. The whole file is checked, flushed to disk and renamed.
"""

import itertools
import logging
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import requests
from requests.auth import AuthBase

from bm.studies.downloads.client import (
    Client,
    DownloadError,
    Stopped,
    reason,
    refuse_page,
    total_size,
)
from bm.studies.downloads.manifest import ALGORITHMS, RemoteFile, checksum
from bm.studies.downloads.paths import make_folder

logger = logging.getLogger(__name__)

CHUNK = 1 << 16
N_STALLS = 6
"""Tries in a row that bring nothing, after which a transfer is given up."""
N_WRONG = 2
"""Whole files in a row with the wrong content."""
PAGES = (".html", ".htm", ".xhtml")


def fetch(
    file: RemoteFile,
    root: Path,
    client: Client,
    auth: AuthBase,
    on_bytes: Callable[[int], None],
) -> RemoteFile:
    """Bring a file to its place; returns it with its size and a checksum filled in.

    Parameters
    ----------
    file : what to bring; it has a URL.
    root : folder of the data.
    on_bytes : called with the number of bytes gained; negative if some turn out wrong.

    Raises
    ------
    DownloadError : it can't be had, or its content is wrong.
    DataError : its folder is a link to elsewhere.
    OSError : the disk is full or not writable.
    """
    target = root / file.path
    make_folder(target.parent, root)
    part = Part(target, on_bytes)
    part.take_over(file)
    n_stalls, n_wrong = 0, 0
    while True:
        before = part.size
        try:
            if not before or before != file.size:
                _receive(file, part, client, auth)
        except requests.RequestException as error:
            n_stalls = 0 if part.size > before else n_stalls + 1
            if n_stalls == N_STALLS:
                raise DownloadError(f"{file.path}: {reason(error)}, {N_STALLS} times.") from error
            client.pause(2.0**n_stalls)
            continue
        fault = None if file.is_unknown else file.find_fault(part.file, thorough=True)
        if fault is None:
            part.finish()
            return _filled_in(file, target)
        part.discard()
        n_wrong += 1
        if n_wrong == N_WRONG:
            raise DownloadError(f"{file.path}: what came has {fault}, {N_WRONG} times.")
        logger.warning("%s: what came has %s. Fetching it again.", file.path, fault)


class Part:
    """The beginning of a file, and what tells its version from others.

    Parameters
    ----------
    target : where the whole file will be.
    on_bytes : called with the number of bytes that `size` has changed by.
    """

    def __init__(self, target: Path, on_bytes: Callable[[int], None]):
        self.target = target
        self.file = target.with_name(f"{target.name}.part")
        self._version_file = target.with_name(f"{target.name}.part-version")
        self._on_bytes = on_bytes
        self._reported = 0

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return _size(self.file) if self.file.exists() else 0

    @property
    def version(self) -> str:
        """What to send as If-Range; empty if the source named nothing."""
        return self._version_file.read_text() if self._version_file.exists() else ""

    def take_over(self, file: RemoteFile) -> None:
        """Go on from a file that was cut off, by whomever, if a checksum will tell.

        A link is left alone: what it leads to isn't ours.
        """
        if file.size is not None:
            if self.size > file.size:
                self.discard()
            is_ours = self.target.is_file() and not self.target.is_symlink()
            if is_ours and file.hashes and self.size < _size(self.target) < file.size:
                self.discard()
                os.replace(self.target, self.file)
        self.report()

    def headers(self, can_tell: bool) -> dict[str, str]:
        """Ask for the rest or, of another version, for all of it.

        Parameters
        ----------
        can_tell : a checksum will tell whether the rest fits the beginning.
        """
        if not self.version and not can_tell:
            self.discard()
        if not self.size:
            return {}
        if_range = {"If-Range": self.version} if self.version else {}
        return {"Range": f"bytes={self.size}-", **if_range}

    def restart(self, version: str) -> None:
        """Begin anew. The order matters: a kill must not leave one version's name on another."""
        self.discard()
        self._version_file.write_text(version)
        self.file.touch()

    def report(self) -> None:
        """Tell how much was gained or lost since the last time."""
        size = self.size
        self._on_bytes(size - self._reported)
        self._reported = size

    def discard(self) -> None:
        """Forget what is there."""
        self.file.unlink(missing_ok=True)
        self._version_file.unlink(missing_ok=True)
        self.report()

    def finish(self) -> None:
        """Make it the file. A link in its place is replaced, not followed."""
        with open(self.file, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(self.file, self.target)
        self._version_file.unlink(missing_ok=True)


def _receive(file: RemoteFile, part: Part, client: Client, auth: AuthBase) -> None:
    """Add to `part` what the source sends, to the end."""
    url = str(file.url)
    headers = part.headers(can_tell=bool(file.hashes))
    with client.get(url, auth, headers=headers, stream=True) as response:
        version, total = _version(response), total_size(response)
        chunks = response.iter_content(CHUNK)
        first = b""
        continues = _continues(response, part, version)
        if not continues:
            if response.status_code != requests.codes.ok:
                part.discard()
                raise requests.ConnectionError(f"an answer to another question: {response}")
            first = next(chunks, b"")
            if not file.path.lower().endswith(PAGES):
                refuse_page(url, first)
        if total is not None and file.size not in (None, total):
            raise DownloadError(
                f"{file.path} has {total} bytes at its source, and {file.size} in the list of "
                "files. Ask for a new list: refresh=true."
            )
        if not continues:
            part.restart(version)
        with open(part.file, "ab") as stream:
            for chunk in itertools.chain([first], chunks):
                if client.stop.is_set():
                    raise Stopped
                stream.write(chunk)
                stream.flush()
                part.report()
    if total is not None and part.size < total:
        raise requests.ConnectionError(f"{part.size} of {total} bytes came")


def _continues(response: requests.Response, part: Part, version: str) -> bool:
    """Whether the answer goes on where `part` ends, with the same version."""
    if response.status_code != requests.codes.partial_content:
        return False
    begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if begins is None or int(begins[1]) != part.size:
        return False
    return version == part.version or not (version and part.version)


def _version(response: requests.Response) -> str:
    """What tells this version from others: a weak ETag doesn't."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _size(path: Path) -> int:
    return path.stat().st_size


def _filled_in(file: RemoteFile, target: Path) -> RemoteFile:
    hashes = file.hashes or {ALGORITHMS[0]: checksum(target, ALGORITHMS[0])}
    return replace(file, size=_size(target), hashes=hashes)
