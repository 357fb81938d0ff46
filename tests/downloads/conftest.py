"""What tests of downloads share: a server, a client that doesn't wait, and nobody's logins."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import FileServer

from bm.studies.downloads.client import Client


@pytest.fixture
def server() -> Iterator[FileServer]:
    """A server without files."""
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def client() -> Iterator[Client]:
    """A client that tries again at once."""
    client = Client(patience=0.0)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever runs the tests may have logins."""
    for name in ("DRYAD_TOKEN", "OSF_TOKEN", "DONDERS_USER", "DONDERS_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
