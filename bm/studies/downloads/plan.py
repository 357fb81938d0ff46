"""What a study downloads: from where, which files, and where they go."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bm.core.messages import check_choice
from bm.studies.downloads.sources import Source
from bm.studies.downloads.unpack import Archive


@dataclass(frozen=True)
class Plan:
    """What a study downloads.

    Attributes
    ----------
    sources : where from; of two with the same file, the first has it.
    archives : what to unpack, in this order.
    n_digits : digits in the label of a person: 1 is "01".
    groups : pattern of the labels of people, by modality.
    folder : below the study's path; empty if the files go there.
    """

    sources: tuple[Source, ...]
    archives: tuple[Archive, ...] = ()
    n_digits: int = 0
    groups: Mapping[str, str] = field(default_factory=dict)
    folder: str = "download"

    def root(self, path: Path) -> Path:
        """Folder for the data: `path` itself, if some are there and nowhere else."""
        below = path / self.folder
        is_there = any(
            len(source.missing_landmarks(path)) < len(source.landmarks) for source in self.sources
        )
        return path if is_there and not below.is_dir() else below

    def local_root(self, path: Path) -> Path:
        """Folder of data that are there already."""
        below = path / self.folder
        return below if below.is_dir() else path

    def labels(
        self, subjects: str | int | Sequence[str | int] | None, modality: str | None
    ) -> list[str] | None:
        """Labels of people as files have them, or patterns; None for all.

        Raises
        ------
        ValueError : the study has no such modality.
        """
        if modality is not None:
            check_choice("modality", modality, self.groups)
        if subjects is None:
            return None if modality is None else [self.groups[modality]]
        wanted = [subjects] if isinstance(subjects, str | int) else subjects
        return [str(label).removeprefix("sub-").zfill(self.n_digits) for label in wanted]

    def sources_for(self, modality: str | None, servers: Mapping[str, str]) -> list[Source]:
        """Sources that are needed, some on other servers than usual.

        Raises
        ------
        ValueError : a server is given for a source that doesn't exist.
        """
        for name in servers:
            check_choice("server", name, [source.name for source in self.sources])
        return [
            dataclasses.replace(source, server=servers.get(source.name, source.server).rstrip("/"))
            for source in self.sources
            if modality is None or source.modality in (None, modality)
        ]
