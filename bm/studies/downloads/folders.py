"""Services with folders, OSF and WebDAV, asked folder by folder: only into those that are needed.

Enters: which project or collection. Leaves: `RemoteFile`s.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urljoin, urlsplit
from xml.etree import ElementTree

from requests.auth import AuthBase

from bm.studies.downloads.client import Client, DownloadError, Refused
from bm.studies.downloads.credentials import Anonymous, find_login, find_token
from bm.studies.downloads.manifest import RemoteFile
from bm.studies.downloads.paths import leads_to, matches, safe_path
from bm.studies.downloads.sources import Source, known_hashes, understood

logger = logging.getLogger(__name__)

PAGE_SIZE = "page[size]=100"
DAV = "{DAV:}"
PROPFIND = (
    '<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><resourcetype/>'
    "<getcontentlength/></prop></propfind>"
)
SHA256 = re.compile(r"\b[0-9a-fA-F]{64}\b")


@dataclass(frozen=True, kw_only=True)
class Osf(Source):
    """Projects of the Open Science Framework, joined into one tree: the first with a path has it.

    A token is not needed, but without it OSF answers a hundred requests an hour only.

    Attributes
    ----------
    nodes : ids of the projects.
    token_variable : environment variable that can hold a token.
    """

    nodes: tuple[str, ...]
    server: str = "https://api.osf.io/v2"
    token_variable: str = "OSF_TOKEN"

    def auth(self) -> AuthBase:
        """The token, if there is one."""
        return find_token(self.token_variable) or Anonymous()

    def list_files(self, client: Client, patterns: Sequence[str]) -> Iterator[RemoteFile]:
        """Files that fit the patterns, with MD5 and SHA-256 checksums."""
        seen = set()
        for node in self.nodes:
            folders = [f"{self.server}/nodes/{node}/files/osfstorage/"]
            while folders:
                for path, child in self._children(client, folders.pop()):
                    if isinstance(child, str):
                        if leads_to(path, patterns):
                            folders.append(child)
                    elif matches(path, patterns) and path not in seen:
                        seen.add(path)
                        yield child

    def _children(self, client: Client, folder: str) -> Iterator[tuple[str, str | RemoteFile]]:
        """Files in a folder, and the URLs of its folders, by path; page by page."""
        url: str | None = f"{folder}{'&' if '?' in folder else '?'}{PAGE_SIZE}"
        while url:
            with understood(url):
                page = client.json(url, self.auth_for(url))
                for item in page["data"]:
                    about = item["attributes"]
                    path = safe_path(about["materialized_path"].strip("/"))
                    if about["kind"] == "folder":
                        yield path, item["relationships"]["files"]["links"]["related"]["href"]
                    else:
                        hashes = known_hashes((about.get("extra") or {}).get("hashes") or {})
                        yield (
                            path,
                            RemoteFile(path, item["links"]["download"], about["size"], hashes),
                        )
                url = page["links"].get("next")


@dataclass(frozen=True, kw_only=True)
class WebDav(Source):
    """A folder of a WebDAV server, with a login.

    Attributes
    ----------
    user_variable, password_variable : environment variables of the login; else ``~/.netrc``.
    checksums : file in that folder with a SHA-256 checksum and a path in each line.
    """

    user_variable: str
    password_variable: str
    checksums: str

    def auth(self) -> AuthBase:
        """The login."""
        login = find_login(self.user_variable, self.password_variable, self.server)
        if login is None:
            raise Refused(
                f"no login: set {self.user_variable} and {self.password_variable} in the "
                f"environment, or write into ~/.netrc (chmod 600): machine "
                f"{urlsplit(self.server).hostname} login USER password PASSWORD."
            )
        return login

    def list_files(self, client: Client, patterns: Sequence[str]) -> Iterator[RemoteFile]:
        """Files that fit the patterns; with checksums, if the collection has a list of them."""
        files = list(self._walk(client, patterns))
        hashes = self._checksums(client, {file.path for file in files})
        for file in files:
            yield replace(file, hashes=hashes.get(file.path, {}))

    def _walk(self, client: Client, patterns: Sequence[str]) -> Iterator[RemoteFile]:
        folders = [""]
        while folders:
            for path, is_folder, size in self._children(client, folders.pop()):
                if is_folder:
                    if leads_to(path, patterns):
                        folders.append(path)
                elif matches(path, patterns):
                    yield RemoteFile(path, self._url(path), size)

    def _children(self, client: Client, folder: str) -> Iterator[tuple[str, bool, int | None]]:
        """Path, whether it is a folder, and size of everything in a folder."""
        url = self._url(folder) + "/"
        headers = {"Depth": "1", "Content-Type": "application/xml"}
        answer = client.get(url, self.auth(), method="PROPFIND", headers=headers, body=PROPFIND)
        try:
            tree = ElementTree.fromstring(answer.content)
        except ElementTree.ParseError as error:
            raise DownloadError(f"{url}: no answer in the way of WebDAV ({error}).") from error
        base = _path(f"{self.server}/")
        for item in tree.iter(f"{DAV}response"):
            path = _path(urljoin(url, item.findtext(f"{DAV}href", "")))
            if not path.startswith(base):
                raise DownloadError(f"{url}: its list names {path!r}, which is outside of it.")
            path = path.removeprefix(base).strip("/")
            if path != folder:
                is_folder = item.find(f".//{DAV}resourcetype/{DAV}collection") is not None
                size = item.findtext(f".//{DAV}getcontentlength") or ""
                yield safe_path(path), is_folder, int(size) if size.isdecimal() else None

    def _checksums(self, client: Client, paths: set[str]) -> dict[str, dict[str, str]]:
        """Checksums by path. Columns may stand in any order, between tabs or blanks."""
        if self.checksums not in paths:
            logger.info("%s has no %s: sizes are compared alone.", self.server, self.checksums)
            return {}
        text = client.get(self._url(self.checksums), self.auth()).content.decode(errors="replace")
        found: dict[str, dict[str, str]] = {}
        for line in text.splitlines():
            checksum = SHA256.search(line)
            if checksum:
                rest = line.replace(checksum[0], "\t")
                names = [cell.strip(" *\"'").removeprefix("./") for cell in rest.split("\t")]
                found |= {name: {"sha256": checksum[0].lower()} for name in names if name in paths}
        logger.info("%s: checksums of %d of %d files.", self.checksums, len(found), len(paths))
        return found

    def _url(self, path: str) -> str:
        return f"{self.server}/{quote(path)}" if path else self.server


def _path(url: str) -> str:
    return unquote(urlsplit(url).path)
