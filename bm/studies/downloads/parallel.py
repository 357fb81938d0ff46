"""Many files at a time, under one progress bar."""

import errno
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bm.core.messages import DataError
from bm.core.progress import progress
from bm.studies.downloads.client import Client, Refused
from bm.studies.downloads.manifest import RemoteFile
from bm.studies.downloads.sources import Source
from bm.studies.downloads.transfer import fetch

GOES_ON = "What has come stays; the same command goes on from there."


def fetch_all(
    files: Sequence[tuple[Source, RemoteFile]],
    root: Path,
    client: Client,
    title: str,
    n_parallel: int,
) -> Iterator[tuple[Source, RemoteFile | DataError]]:
    """Fetch files; yields each one, as it comes, or why it doesn't. No failure stops the others.

    Once a source has refused a file, it isn't asked for the rest: these are passed over in silence.

    Raises
    ------
    OSError : the disk is, or would be, full, or is not writable.
    """
    total = sum(file.size or 0 for _, file in files)
    _check_room(total, root)
    refusing: set[str] = set()
    bar: tqdm[Any]
    with progress((), title, "B", total or None) as bar, ThreadPoolExecutor(n_parallel) as pool:
        count = _Counter(bar)

        def fetch_one(source: Source, file: RemoteFile) -> RemoteFile | None:
            if source.name in refusing:
                return None
            return fetch(file, root, client, source.auth_for(str(file.url)), count)

        futures = {pool.submit(fetch_one, source, file): source for source, file in files}
        try:
            for future in as_completed(futures):
                source = futures[future]
                try:
                    file = future.result()
                except DataError as error:
                    if isinstance(error, Refused):
                        refusing.add(source.name)
                    yield source, error
                else:
                    if file is not None:
                        yield source, file
        except BaseException as error:  # an interrupt, too, must not wait for the whole queue
            client.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(error.errno, f"{root}: the disk is full. {GOES_ON}") from error
            raise


def _check_room(needed: int, root: Path) -> None:
    free = shutil.disk_usage(root).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{root}: {needed / 1e9:.3f} GB are to come, and {free / 1e9:.3f} GB are free. Free "
            f"some space, choose another folder, or fewer subjects. {GOES_ON}",
        )


class _Counter:
    """Adds up what threads report."""

    def __init__(self, bar: "tqdm[Any]"):
        self._bar = bar
        self._lock = threading.Lock()

    def __call__(self, n_bytes: int) -> None:
        with self._lock:
            self._bar.update(n_bytes)
