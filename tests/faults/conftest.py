"""What the fault suite shares: a small study, and the tally."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_suite import Processes, Reference, Tally
from stages import STAGES, finished


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    """Counts tries; with --faults=FILE its table replaces the one in the file."""
    path = request.config.getoption("--faults")
    return Tally(Path(path) if path else None)


@pytest.fixture(scope="session")
def often(request: pytest.FixtureRequest) -> bool:
    """Whether the suite runs in full: at least 30 tries each."""
    return request.config.getoption("--faults") is not None


@pytest.fixture(scope="session")
def processes(base: Path, python_env: dict[str, str]) -> Iterator[Processes]:
    started = Processes(base, python_env)
    yield started
    started.close()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes put a study of two people, and a speech model."""
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def reference(base: Path, processes: Processes) -> Reference:
    folder = base / "reference"
    folder.mkdir()
    results = {}
    for stage in STAGES:
        if stage != "download":
            processes.finish(stage, folder)
            results[stage] = finished(stage, folder)
            assert results[stage]
    return Reference(base, folder, results)
