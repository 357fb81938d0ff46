"""One download: what is missing is listed, fetched and unpacked, and problems are collected."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bm.core.messages import DataError
from bm.core.progress import progress
from bm.studies.downloads.client import Client, DownloadError, Refused
from bm.studies.downloads.links import link_files
from bm.studies.downloads.manifest import Manifest, RemoteFile, Unpacked
from bm.studies.downloads.parallel import GOES_ON, fetch_all
from bm.studies.downloads.paths import matches
from bm.studies.downloads.plan import Plan
from bm.studies.downloads.sources import Source
from bm.studies.downloads.unpack import Archive, unpack

logger = logging.getLogger(__name__)

SAVE_EVERY = 10.0
"""Seconds between two notes of what has come."""
MAX_NAMED = 10
"""Problems that the error names; the log has all of them."""


@dataclass(frozen=True)
class Connection:
    """How to reach the sources.

    Attributes
    ----------
    servers : URLs in place of the usual ones, by the names of sources.
    n_parallel : files that come at the same time.
    patience : scale of the waits between tries.
    """

    servers: Mapping[str, str] = field(default_factory=dict)
    n_parallel: int = 4
    patience: float = 1.0


class Job:
    """One download of one study.

    Parameters
    ----------
    name, plan : the study.
    root : folder of its data.
    labels : of the people who are needed, or patterns of them; None for all.
    modality : sources for other modalities aren't needed.
    connection : how to reach the sources.
    verify : compare checksums.
    refresh : ask for the lists of files anew.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        root: Path,
        labels: Sequence[str] | None,
        modality: str | None,
        connection: Connection,
        verify: bool,
        refresh: bool,
    ):
        self.name = name
        self.root = root
        self.archives = plan.archives
        self.sources = plan.sources_for(modality, connection.servers)
        self.labels = labels
        self.verify = verify
        self.n_parallel = connection.n_parallel
        self.client = Client(connection.patience)
        self.manifest = Manifest(root)
        self.n_fetched = 0
        self.n_bytes = 0
        self._problems: list[str] = []
        self._damaged: list[str] = []
        self._troubled: set[str] = set()
        self._by_hand: list[Source] = []
        self._to_list = {source.name for source in self.sources} if refresh else set()

    def files(self) -> dict[str, tuple[Source, RemoteFile]]:
        """Files that are asked for, by path, as far as they are known."""
        files: dict[str, tuple[Source, RemoteFile]] = {}
        for source in self.sources:
            for file in self.manifest.files(source.name, source.patterns(self.labels)) or ():
                files.setdefault(file.path, (source, file))
        return files

    def is_complete(self) -> bool:
        """Whether all that is asked for is known, there, and unpacked."""
        return (
            all(self._is_listed(source) for source in self.sources)
            and not any(self.manifest.find_fault(file) for _, file in self.files().values())
            and not any(self._packed())
            and not (self.verify and self._missing())
        )

    def read_again(self) -> None:
        """Read the manifest again: another process may have been at it."""
        self.manifest = Manifest(self.root)

    def link(self, local_root: Path) -> None:
        """Link what is needed to another folder.

        Raises
        ------
        DownloadError : something is not in it.
        """
        patterns = [text for source in self.sources for text in source.patterns(self.labels)]
        patterns += [archive.pattern for archive in self.archives]
        n_files = link_files(local_root, self.root, patterns)
        logger.info("%s: %d files of %s are linked.", self.name, n_files, local_root)
        self._unpack()
        for source in self.sources:
            self._adopt(source, f"{local_root} doesn't have it all")
        self.manifest.save()
        self._raise_problems()

    def run(self) -> None:
        """Fetch and unpack what is missing.

        Raises
        ------
        DownloadError : something is missing still.
        OSError : the disk is full or not writable.
        """
        self._unpack()  # put there by hand, or left by a run that was killed
        for source in self.sources:
            if not self._is_listed(source):
                self._list(source)
        self.manifest.save()
        self._fetch()
        self._unpack()
        self.manifest.save()
        for source in self.sources:
            missing = source.missing_landmarks(self.root)
            if missing and source.name not in self._troubled:
                self._note(source, f"what came holds no {_listed(missing)}.", by_hand=True)
        self._raise_problems()

    def _is_listed(self, source: Source) -> bool:
        """Whether the files of a source are known, and can be had if they are missing."""
        files = self.manifest.files(source.name, source.patterns(self.labels))
        if source.name in self._to_list:
            return False
        if files is None or source.missing_subjects(self.labels, files):
            return False
        return not any(file.url is None and self.manifest.find_fault(file) for file in files)

    def _list(self, source: Source) -> None:
        """Ask a source for its list of files; if it refuses, take what was put there by hand."""
        patterns = source.patterns(self.labels)
        is_there = bool(source.landmarks) and not source.missing_landmarks(self.root)
        if source.prefers_hands and is_there and source.name not in self._to_list:
            return self._adopt(source, "")
        logger.info("%s: asking %s for the list of files.", self.name, source.server or source.name)
        try:
            listed = list(source.list_files(self.client, patterns))
        except Refused as error:
            return self._adopt(source, str(error))
        except DataError as error:
            return self._note(source, str(error), by_hand=source.prefers_hands)
        files = [file for file in listed if matches(file.path, patterns)]
        self._add(source, files)
        absent = source.missing_subjects(self.labels, files)
        if absent or not files:
            what = f"subject {', '.join(absent)}" if absent else ", ".join(patterns)
            self._note(source, f"{source.server} has no file of {what}.")

    def _adopt(self, source: Source, why: str) -> None:
        """Take the files of a source that are there as they are, if they are what is needed."""
        patterns = source.patterns(self.labels)
        try:
            files = source.adopt(self.root, patterns)
        except DataError as error:
            self._note(source, str(error), by_hand=True)
            return
        missing = source.missing_landmarks(self.root)
        missing += [f"file of subject {who}" for who in source.missing_subjects(self.labels, files)]
        if missing or not files:
            lacking = _listed(missing or patterns)
            self._note(source, f"{why} In {self.root} there is no {lacking}.", by_hand=True)
            return
        logger.info("%s: %d files of %s are taken as they are.", self.name, len(files), source.name)
        self._add(source, files)

    def _add(self, source: Source, files: Sequence[RemoteFile]) -> None:
        self.manifest.add(source.name, source.patterns(self.labels), files)
        self._to_list.discard(source.name)

    def _missing(self) -> list[tuple[Source, RemoteFile]]:
        """Files that are to be fetched."""
        known: Sequence[tuple[Source, RemoteFile]] = list(self.files().values())
        missing = []
        for source, file in progress(known, "Verifying", "files") if self.verify else known:
            fault = self.manifest.find_fault(file, self.verify)
            if fault:
                log = logger.debug if fault == "missing" else logger.warning
                log("%s: %s.", self.root / file.path, fault)
                missing.append((source, file))
        return missing

    def _fetch(self) -> None:
        """Fetch what is missing."""
        missing = self._missing()
        for source, file in missing:
            if file.url is None:
                fault = self.manifest.find_fault(file, self.verify)
                self._note(source, f"{file.path}: {fault}; it came by hand.", by_hand=True)
        files = [(source, file) for source, file in missing if file.url is not None]
        title, saved = f"Downloading {self.name}", time.monotonic()
        for source, came in fetch_all(files, self.root, self.client, title, self.n_parallel):
            if isinstance(came, DataError):
                self._note(source, str(came), by_hand=isinstance(came, Refused))
                continue
            self.manifest.update(source.name, came)
            self.n_fetched += 1
            self.n_bytes += came.size or 0
            if time.monotonic() - saved > SAVE_EVERY:
                self.manifest.save()
                saved = time.monotonic()

    def _packed(self) -> Iterator[tuple[Archive, Path]]:
        """Archives that are there and not unpacked, and how to do it."""
        for archive in self.archives:
            for file in sorted(self.root.glob(archive.pattern)):
                if not self.manifest.is_unpacked(file.name, self.verify):
                    yield archive, file

    def _unpack(self) -> None:
        """Unpack archives; one can come out of another."""
        self._damaged = []
        for archive, file in self._packed():
            try:
                files = unpack(file, self.root, archive)
            except DataError as error:
                self._damaged.append(str(error))
            else:
                self.manifest.unpacked[file.name] = Unpacked(file.stat().st_size, files)

    def _note(self, source: Source, problem: str, by_hand: bool = False) -> None:
        """Take note of a problem, and whether the way by hand is worth telling."""
        logger.warning("%s, %s: %s", self.name, source.name, problem)
        self._problems.append(f"{source.name}: {problem}")
        self._troubled.add(source.name)
        if by_hand and source.steps and source not in self._by_hand:
            self._by_hand.append(source)

    def _raise_problems(self) -> None:
        problems = [*self._problems, *self._damaged]
        if not problems:
            return
        lines = [f"{self.name}: not everything is there.", *problems[:MAX_NAMED]]
        if len(problems) > MAX_NAMED:
            lines.append(f"... and {len(problems) - MAX_NAMED} more, which the log has.")
        lines += [source.steps.format(root=self.root) for source in self._by_hand]
        raise DownloadError("\n".join([*lines, GOES_ON]))


def _listed(patterns: Sequence[str]) -> str:
    return " and no ".join(pattern.replace("|", " or ") for pattern in patterns)
