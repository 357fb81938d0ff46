"""What all tests share: type checks on, one thread, quiet MNE, and where the shared data are."""

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import type_checks

type_checks.install()  # before anything of bm is imported

import mne  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from bm.core.cache import Cache  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
mne.set_log_level("ERROR")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--network", action="store_true", help="run the tests that need the internet")
    parser.addoption("--faults", help="try each fault often, and put the table into this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine has no means for."""
    missing = {}
    if not config.getoption("--network"):
        missing["network"] = "needs the internet: run with --network"
    if not torch.cuda.is_available():
        missing["gpu"] = "needs a CUDA device"
    if not _slurm_answers():
        missing["slurm"] = "needs a SLURM cluster that answers (sinfo)"
    for item in items:
        for marker, reason in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _slurm_answers() -> bool:
    if shutil.which("sinfo") is None or shutil.which("sbatch") is None:
        return False
    try:
        return subprocess.run(["sinfo"], capture_output=True, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Commands that a test runs in this process set up logging: take that back."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings and speech, which lie beside the repository and not in it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real recordings (../shared/data) are not on this machine")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "cache")


@pytest.fixture(scope="session")
def python_env() -> dict[str, str]:
    """Environment for Python processes that tests start: they find bm and use one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for 2 MB, to be filled."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes the rights of root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
