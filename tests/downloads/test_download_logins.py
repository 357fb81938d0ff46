"""Logins on their way: to their own server, encrypted, and nowhere else."""

import subprocess
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from threading import Thread

import pytest
from servers import FileServer

from bm.core.messages import DataError
from bm.studies.downloads.client import DownloadError
from bm.studies.downloads.credentials import find_token
from bm.studies.downloads.folders import WebDav


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[str, FileServer, Path]]:
    """A server with encryption: its URL, what it serves, and its own certificate."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost".split()
    command += ["-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl can't make a certificate here: {error}")
    files = FileServer()
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = files._server.RequestHandlerClass
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"https://localhost:{server.server_port}", files, certificate
    server.shutdown()
    server.server_close()
    files.close()


def test_no_login_is_sent_in_the_open(client, monkeypatch):
    monkeypatch.setenv("DONDERS_USER", "me@example.org")
    monkeypatch.setenv("DONDERS_PASSWORD", "secret")
    source = WebDav(
        name="donders",
        server="http://webdav.example.org/x",
        user_variable="DONDERS_USER",
        password_variable="DONDERS_PASSWORD",
        checksums="",
    )
    with pytest.raises(DataError, match=r"No login is sent to webdav\.example\.org.*https"):
        list(source.list_files(client, source.patterns(None)))


def test_a_login_in_a_url_is_refused_and_not_repeated(client):
    with pytest.raises(DataError, match="holds a login") as caught:
        client.get("https://me:secret@example.org/x")
    assert "secret" not in str(caught.value)


def test_netrc_is_for_sources_with_a_login_only(server, client, tmp_path):
    (tmp_path / "netrc").write_text("default login me@example.org password secret\n")
    server.add("/a", b"1")
    server.add("/b", b"", location=f"{server.url.replace('127.0.0.1', 'localhost')}/a")
    client.get(f"{server.url}/b")
    assert not any("Authorization" in headers for _, headers in server.requests)


def test_a_server_with_a_certificate_of_its_own_making_gets_no_login(client, secure, monkeypatch):
    url, files, certificate = secure
    files.add("/x", b"data", login="Bearer abc")
    monkeypatch.setenv("DRYAD_TOKEN", "abc")
    token = find_token("DRYAD_TOKEN")
    with pytest.raises(DownloadError, match="its certificate isn't trusted"):
        client.get(f"{url}/x", token)
    assert files.requests == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert client.get(f"{url}/x", token).content == b"data"


def test_encryption_doesnt_end_on_the_way(client, server, secure, monkeypatch):
    url, files, certificate = secure
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server.add("/store", b"data")
    files.add("/x", b"", location=f"{server.url}/store?signature=abc")
    with pytest.raises(DownloadError, match=r"/store, without encryption: not asked") as caught:
        client.get(f"{url}/x")
    assert "signature" not in str(caught.value)
    assert server.requests == []
    server.add("/y", b"", location=f"{url}/z")
    files.add("/z", b"data")
    assert client.get(f"{server.url}/y").content == b"data"


def test_a_token_goes_on_to_the_same_server_alone(client, server, monkeypatch):
    monkeypatch.setenv("DRYAD_TOKEN", "abc")
    other = server.url.replace("127.0.0.1", "localhost")
    server.add("/data", b"data")
    for path, place in {"/same": server.url, "/other": other}.items():
        server.add(path, b"", location=f"{place}/data")
        client.get(f"{server.url}{path}", find_token("DRYAD_TOKEN"))
    same, elsewhere = server.asked("/data")
    assert same["Authorization"] == "Bearer abc"
    assert "Authorization" not in elsewhere
