"""Pages, opened in a real browser without a window and without the internet."""

import shutil
import subprocess
from pathlib import Path

import pytest

PATIENCE = 90


def browse(
    url: str, folder: Path, *options: str, budget: int = 5000, picture: Path | None = None
) -> str:
    """Open a page and return its DOM as HTML once its scripts have run.

    Parameters
    ----------
    url : of a file, or of a server on this machine.
    folder : where the browser keeps what it likes.
    options : further ones of the browser.
    budget : virtual milliseconds that scripts get; waiting for a server costs some, too.
    picture : file (PNG) for a picture of the page, such as those in docs/images.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium or google-chrome on this machine")
    if picture is not None:
        options = (*options, f"--screenshot={picture}")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-3d-apis",
        "--hide-scrollbars", f"--user-data-dir={folder / 'browser'}", "--dump-dom",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
        f"--virtual-time-budget={budget}", *options, url,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout
