"""Which code made a result."""

import subprocess
from importlib.metadata import version
from pathlib import Path

from bm import __version__

PACKAGES = ("torch", "numpy", "mne")


def versions() -> dict[str, str]:
    """Version of bm, and of the packages that decide numbers."""
    return {"bm": __version__, **{name: version(name) for name in PACKAGES}}


def git_commit() -> str | None:
    """Commit of the code in use; None where it isn't a git checkout."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
