"""Download a study, so that any number of jobs can ask for it at once and each file comes once.

Enters: the name of a study and a folder. Leaves: its files in that folder, each whole and as its
source has it; or an error that says which are not there, and how to get them by hand. How it is
done is in `bm.studies.downloads`, one idea in each file.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bm.studies.downloads.client import DownloadError
from bm.studies.downloads.job import Connection, Job
from bm.studies.downloads.paths import FOLDER
from bm.studies.downloads.plan import Plan
from bm.studies.downloads.studies import PLANS, find_plan

logger = logging.getLogger(__name__)

__all__ = ["Connection", "DownloadError", "Summary", "download", "download_selection"]


@dataclass(frozen=True)
class Summary:
    """What became of a download.

    Attributes
    ----------
    root : folder of the data.
    n_files : files that were asked for, all of them there.
    n_fetched, n_bytes : those that came now.
    """

    root: Path
    n_files: int
    n_fetched: int
    n_bytes: int

    def __str__(self) -> str:
        came = f"{self.n_fetched} came now, {self.n_bytes / 1e6:.1f} MB"
        return f"{self.n_files} files are in {self.root} ({came})"


def download(
    name: str,
    path: str | Path,
    *,
    subjects: str | int | Sequence[str | int] | None = None,
    modality: str | None = None,
    local_path: str | Path | None = None,
    verify: bool = False,
    refresh: bool = False,
    connection: Connection | None = None,
) -> Summary:
    """See to it that a study's files are there. If they are, nobody is asked.

    Parameters
    ----------
    name : study; or another dataset, as in `bm.studies.downloads.studies`.
    path : folder of the study. Files go to ``download`` below it, unless it has some itself.
    subjects : labels of the people whose files are needed; all if not given.
    modality : people of this modality only ("audio" or "visual", for schoffelen2019).
    local_path : folder where the data are already: they are linked, and nothing is downloaded.
    verify : compare checksums, not sizes alone; what differs is fetched again.
    refresh : ask the sources for their lists of files anew.
    connection : how to reach the sources.

    Raises
    ------
    DownloadError : some files could not be had. The others are there.
    ValueError : an argument makes no sense.
    OSError : the disk is full or not writable.
    """
    plan = find_plan(name)
    root = plan.root(Path(path).expanduser().absolute())
    labels = plan.labels(subjects, modality)
    job = Job(name, plan, root, labels, modality, connection or Connection(), verify, refresh)
    if local_path is not None or not job.is_complete():
        with _one_at_a_time(root), closing(job.client):
            job.read_again()
            if local_path is not None:
                job.link(plan.local_root(Path(local_path).expanduser().absolute()))
            elif not job.is_complete():
                job.run()
    summary = Summary(root, len(job.files()), job.n_fetched, job.n_bytes)
    logger.info("%s: %s.", name, summary)
    return summary


def download_selection(
    selection: Mapping[str, Any], connection: Connection | None = None
) -> Summary | None:
    """Download what a selection of the configuration needs.

    Returns None if its study has no download, or if all kinds of its files are there that weren't
    downloaded by us: those are taken as they are.

    Raises
    ------
    DownloadError : some files could not be had.
    """
    name = str(selection.get("study"))
    if name not in PLANS or not selection.get("path"):
        return None
    if _came_otherwise(PLANS[name], Path(selection["path"]), selection.get("modality")):
        logger.info(
            "%s: the files in %s are taken as they are; python -m scripts.download checks them.",
            name,
            selection["path"],
        )
        return None
    return download(
        name,
        selection["path"],
        subjects=selection.get("subjects"),
        modality=selection.get("modality"),
        connection=connection,
    )


def _came_otherwise(plan: Plan, path: Path, modality: str | None) -> bool:
    """Whether the data were put there by other means than a download of ours."""
    root = plan.root(path.expanduser().absolute())
    return not (root / FOLDER).exists() and not any(
        source.missing_landmarks(root) for source in plan.sources_for(modality, {})
    )


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Let one process at a time download into a folder: the others wait, and find it done."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Another process downloads into %s: waiting for it.", root)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
