"""Real servers on 127.0.0.1 for tests of downloads: they count what they send, and fail as told."""

import hashlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp

CHUNK = 1 << 16
HTML = b"<!DOCTYPE html>\n<html><head><title>Just a\n moment...</title></head></html>"


@dataclass
class Served:
    """A file of the server, and what goes wrong with it; lists are used up request by request.

    Attributes
    ----------
    content : what it holds.
    tag : its ETag; "" for none.
    ranges : whether a part of it can be asked for.
    drops : after how many bytes the connection breaks.
    statuses : answers instead of the file.
    headers : further headers of the answer, of these statuses too.
    delay : seconds before each 64 KiB.
    location : where to go instead.
    login : Authorization header without which the answer is 401.
    successor : what is served in its place after the first drop.
    """

    content: bytes = b""
    tag: str = '"1"'
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    location: str = ""
    login: str = ""
    successor: "Served | None" = None


class FileServer:
    """Serves `files` by path, and JSON made by `routes`, which get the query."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.routes: dict[str, Callable[[Mapping[str, str]], Any]] = {}
        self.sent: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("_", (_Handler,), {"files": self})
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    def add(self, path: str, content: bytes, **trouble: Any) -> Served:
        """Serve a file."""
        self.files[path] = Served(content, **trouble)
        return self.files[path]

    def asked(self, path: str) -> list[dict[str, str]]:
        """Headers of the requests for a path."""
        return [headers for asked, headers in self.requests if asked == path]

    def close(self) -> None:
        """Stop, so that connections are refused."""
        if not self._thread.is_alive():
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # 40 ms a request otherwise
    files: FileServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        with self.files.lock:
            self.files.requests.append((path, dict(self.headers)))
        if path in self.files.routes:
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            answer = self.files.routes[path](query)
            self._send(Served(json.dumps(answer).encode(), tag=""), path)
        elif path in self.files.files:
            self._send(self.files.files[path], path)
        else:
            self._answer(404)

    def _send(self, file: Served, path: str) -> None:
        with self.files.lock:
            status = file.statuses.pop(0) if file.statuses else 200
            drop = file.drops.pop(0) if file.drops and status == 200 else None
            if drop is not None and file.successor:
                self.files.files[path] = file.successor
        if file.login and self.headers.get("Authorization") != file.login:
            return self._answer(401)
        if file.location:
            return self._answer(302, {"Location": file.location})
        if status != 200:
            return self._answer(status, file.headers)
        content, start = file.content, self._start(file)
        headers = {"ETag": file.tag} if file.tag else {}
        if start is not None and start >= len(content):
            return self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            content = content[start:]
        self.send_response(200 if start is None else 206)
        for name, value in {**headers, "Content-Length": str(len(content)), **file.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self._write(content if drop is None else content[:drop], path, file.delay)
        if drop is not None:
            self._break()

    def _start(self, file: Served) -> int | None:
        wanted = self.headers.get("Range", "")
        if not file.ranges or not wanted or self.headers.get("If-Range", file.tag) != file.tag:
            return None
        return int(wanted.removeprefix("bytes=").rstrip("-"))

    def _write(self, content: bytes, path: str, delay: float) -> None:
        try:
            for begin in range(0, len(content), CHUNK):
                time.sleep(delay)
                piece = content[begin : begin + CHUNK]
                self.wfile.write(piece)
                with self.files.lock:
                    self.files.sent[path] += len(piece)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the other side was killed

    def _answer(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _break(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def below(folder: Path) -> set[str]:
    """Files of the data."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in files if path.parts[0] != ".download"}


def add_osf(
    server: FileServer, node: str, tree: Mapping[str, bytes], page_size: int = 3
) -> dict[str, Served]:
    """Serve files as a project of OSF: paged lists of folders under ``/v2``; returns the files."""
    served = {}
    children: dict[str, dict[str, dict[str, Any]]] = {"": {}}
    for path, content in tree.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder, above = "/".join(parts[:depth]), "/".join(parts[: depth - 1])
            children.setdefault(folder, {})
            url = f"{server.url}{_osf_route(node, folder)}"
            children[above][folder] = {
                "attributes": {"kind": "folder", "materialized_path": f"/{folder}/"},
                "relationships": {"files": {"links": {"related": {"href": url}}}},
            }
        name = f"/download/{node}/{hashlib.md5(path.encode()).hexdigest()[:6]}/"
        served[path] = server.add(name, content)
        hashes = {kind: hashlib.new(kind, content).hexdigest() for kind in ("md5", "sha256")}
        children["/".join(parts[:-1])][path] = {
            "attributes": {
                "kind": "file",
                "materialized_path": f"/{path}",
                "size": len(content),
                "extra": {"hashes": hashes},
            },
            "links": {"download": f"{server.url}{name}"},
        }
    for folder, items in children.items():
        route = _osf_route(node, folder)

        def page(
            query: Mapping[str, str],
            items: dict[str, dict[str, Any]] = items,
            route: str = route,
        ) -> dict[str, Any]:
            size = min(page_size, int(query.get("page[size]", 10)))
            number = int(query.get("page", 1))
            more = number * size < len(items)
            following = f"{server.url}{route}?page={number + 1}&page[size]={size}"
            begin = (number - 1) * size
            return {
                "data": list(items.values())[begin : begin + size],
                "links": {"next": following if more else None},
            }

        server.routes[route] = page
    return served


def _osf_route(node: str, folder: str) -> str:
    below = f"{hashlib.md5(folder.encode()).hexdigest()[:6]}/" if folder else ""
    return f"/v2/nodes/{node}/files/osfstorage/{below}"


def add_dryad(
    server: FileServer, doi: str, files: Mapping[str, bytes], token: str, page_size: int = 2
) -> None:
    """Serve files as a dataset of Dryad, which sends downloads on to another address."""
    login = f"Bearer {token}"
    dataset = f"/api/v2/datasets/doi:{doi}"
    server.routes[dataset] = lambda _: {"_links": {"stash:version": {"href": "/api/v2/versions/7"}}}
    items = []
    for number, (name, content) in enumerate(files.items()):
        server.add(f"/store/{number}", content)
        download = f"/api/v2/files/{number}/download"
        server.add(download, b"", location=f"{server.url}/store/{number}", login=login)
        items.append(
            {
                "path": name,
                "size": len(content),
                "status": "created",
                "digest": hashlib.sha256(content).hexdigest(),
                "digestType": "sha-256",
                "_links": {"stash:download": {"href": download}},
            }
        )

    def page(query: Mapping[str, str]) -> dict[str, Any]:
        number = int(query.get("page", 1))
        following = {"href": f"/api/v2/versions/7/files?page={number + 1}"}
        return {
            "_embedded": {"stash:files": items[(number - 1) * page_size : number * page_size]},
            "_links": {"next": following} if number * page_size < len(items) else {},
        }

    server.routes["/api/v2/versions/7/files"] = page


@contextmanager
def webdav(folder: Path, share: str, user: str, password: str) -> Iterator[str]:
    """A WebDAV server of `folder` with a login; gives its URL."""
    app = WsgiDAVApp(
        {
            "provider_mapping": {f"/{share}": str(folder)},
            "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}},
            "http_authenticator": {
                "accept_basic": True,
                "accept_digest": False,
                "default_to_digest": False,
            },
            "verbose": 0,
            "logging": {"enable": False},
        }
    )
    server = wsgi.Server(("127.0.0.1", 0), app)
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.bind_addr[1]}/{quote(share)}"
    finally:
        server.stop()
        thread.join()
