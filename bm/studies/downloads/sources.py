"""Places that data come from, and how each is asked for its list of files.

Enters: which dataset of a service. Leaves: `RemoteFile`s. Services with folders are in `folders`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urljoin, urlsplit

from requests.auth import AuthBase

from bm.studies.downloads.client import (
    Client,
    DownloadError,
    Refused,
    refuse_page,
    total_size,
)
from bm.studies.downloads.credentials import Anonymous, find_token
from bm.studies.downloads.manifest import ALGORITHMS, RemoteFile, checksum
from bm.studies.downloads.paths import BELOW, find_files, matches, safe_path

PEEK = 4096
"""Bytes of a file by which a web page is told from it."""


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Files that come from one place.

    Attributes
    ----------
    name : what the source is called in messages; unique within a study.
    server : what its URLs begin with.
    include : patterns of the files that are needed, packed or not; ``{subject}`` stands for the
        label of a person.
    landmarks : patterns, with alternatives between bars, each of which fits some file once the data
        are there and unpacked.
    modality : the source is needed for selections of this modality only.
    steps : how to get the files by hand; ``{root}`` stands for the folder they belong in.
    prefers_hands : files put there by hand are taken as they are before anybody is asked.
    """

    name: str
    server: str = ""
    include: tuple[str, ...] = (BELOW,)
    landmarks: tuple[str, ...] = ()
    modality: str | None = None
    steps: str = ""
    prefers_hands: ClassVar[bool] = False

    @abstractmethod
    def list_files(self, client: Client, patterns: Sequence[str]) -> Iterator[RemoteFile]:
        """Files of the source: at least those that fit the patterns."""

    def auth(self) -> AuthBase:
        """Login for the server.

        Raises
        ------
        Refused : the server wants one, and there is none.
        """
        return Anonymous()

    def auth_for(self, url: str) -> AuthBase:
        """Login for a URL that the server named: none if it is on another server."""
        is_same = urlsplit(url)[:2] == urlsplit(self.server)[:2]
        return self.auth() if is_same else Anonymous()

    def patterns(self, subjects: Sequence[str] | None) -> list[str]:
        """Patterns of the files of some people, or of all."""
        labels = subjects or ["*"]
        filled_in = (text.format(subject=label) for text in self.include for label in labels)
        return list(dict.fromkeys(filled_in))

    def missing_subjects(
        self, subjects: Sequence[str] | None, files: Iterable[RemoteFile]
    ) -> list[str]:
        """Labels of the people who were asked for, and of whom there is no file."""
        own = [text for text in self.include if "{subject}" in text]
        paths = [file.path for file in files]
        return [
            label
            for label in (subjects or () if own else ())
            if not any(
                matches(path, [text.format(subject=label) for text in own]) for path in paths
            )
        ]

    def missing_landmarks(self, root: Path) -> list[str]:
        """Landmarks that no file below `root` fits."""
        return [
            landmark
            for landmark in self.landmarks
            if next(find_files(root, landmark.split("|")), None) is None
        ]

    def adopt(self, root: Path, patterns: Sequence[str]) -> list[RemoteFile]:
        """Take the files that are there as they are."""
        found = (path for path in find_files(root, patterns) if (root / path).is_file())
        return [RemoteFile(path, size=(root / path).stat().st_size) for path in found]


@dataclass(frozen=True, kw_only=True)
class Urls(Source):
    """Files of a plain web server, by name.

    If what should come of them was put there by hand, the server isn't asked.
    """

    files: tuple[str, ...]
    prefers_hands = True

    def list_files(self, client: Client, patterns: Sequence[str]) -> Iterator[RemoteFile]:
        """The files, with their sizes if the server tells."""
        for name in self.files:
            url = f"{self.server}/{quote(name)}"
            with client.get(url, self.auth_for(url), stream=True) as response:
                refuse_page(url, next(response.iter_content(PEEK), b""))
                yield RemoteFile(name, url, total_size(response))


@dataclass(frozen=True, kw_only=True)
class ByHand(Source):
    """Files that no program can get.

    Attributes
    ----------
    releases : MD5 checksums of a file's known releases, by path.
    """

    releases: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def list_files(self, client: Client, patterns: Sequence[str]) -> Iterator[RemoteFile]:
        """Say how to get them."""
        raise Refused("these files can't be had by a program.")

    def adopt(self, root: Path, patterns: Sequence[str]) -> list[RemoteFile]:
        """Take the files that are there, if those that are known are right."""
        files = []
        for file in super().adopt(root, patterns):
            known = self.releases.get(file.path, ())
            found = checksum(root / file.path, "md5") if known else ""
            if known and found not in known:
                raise DownloadError(
                    f"{file.path} is of no known release: its MD5 checksum is {found}, not "
                    f"{' or '.join(known)}. Get it again, and don't save it with a spreadsheet."
                )
            files.append(
                RemoteFile(file.path, size=file.size, hashes={"md5": found} if found else {})
            )
        return files


@dataclass(frozen=True, kw_only=True)
class Dryad(Source):
    """A dataset of Dryad. Downloads take a token, in the environment.

    Attributes
    ----------
    doi : of the dataset.
    token_variable : name of the environment variable.
    """

    doi: str
    server: str = "https://datadryad.org"
    token_variable: str = "DRYAD_TOKEN"

    def auth(self) -> AuthBase:
        """The token."""
        token = find_token(self.token_variable)
        if token is None:
            raise Refused(f"no token: the environment variable {self.token_variable} isn't set.")
        return token

    def list_files(self, client: Client, patterns: Sequence[str]) -> Iterator[RemoteFile]:
        """Files of the latest version, page by page."""
        auth = self.auth()
        url = f"{self.server}/api/v2/datasets/{quote(f'doi:{self.doi}', safe='')}"
        with understood(url):
            version = client.json(url, auth)["_links"]["stash:version"]["href"]
            next_page: str | None = f"{version}/files?per_page=100"
            while next_page:
                url = urljoin(self.server, next_page)
                page = client.json(url, self.auth_for(url))
                for item in page["_embedded"]["stash:files"]:
                    if item.get("status") != "deleted":
                        yield self._file(item)
                next_page = page["_links"].get("next", {}).get("href")

    def _file(self, item: Mapping[str, Any]) -> RemoteFile:
        links = item["_links"]
        # Dryad has called it both ways
        link = links.get("stash:download") or links["stash:file-download"]
        hashes = known_hashes({item.get("digestType"): item.get("digest")})
        url = urljoin(self.server, link["href"])
        return RemoteFile(safe_path(item["path"]), url, item.get("size"), hashes)


@dataclass(frozen=True, kw_only=True)
class Zenodo(Source):
    """A record of Zenodo.

    Attributes
    ----------
    record : number of the record.
    """

    record: str
    server: str = "https://zenodo.org"

    def list_files(self, client: Client, patterns: Sequence[str]) -> Iterator[RemoteFile]:
        """Files of the record, with MD5 checksums."""
        url = f"{self.server}/api/records/{self.record}"
        with understood(url):
            for item in client.json(url)["files"]:
                algorithm, _, value = item.get("checksum", "").partition(":")
                hashes = known_hashes({algorithm: value})
                yield RemoteFile(
                    safe_path(item["key"]), item["links"]["self"], item["size"], hashes
                )


@contextmanager
def understood(url: str) -> Iterator[None]:
    """Say which answer was not of the form that it should have."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DownloadError(
            f"{url}: the list of files isn't of the form expected ({error!r}). Has the service "
            "changed? A later version of bm may know."
        ) from error


def known_hashes(hashes: Mapping[str | None, str | None]) -> dict[str, str]:
    """Checksums whose algorithm is understood: services write SHA-256, sha256 or sha-256."""
    named = {(name or "").lower().replace("-", ""): value for name, value in hashes.items()}
    return {name: value.lower() for name, value in named.items() if value and name in ALGORITHMS}
