"""Full and read-only disks: the reason is named, nothing is lost, and the next run goes on."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import stages
from fault_suite import Processes, Reference, Tally
from stages import STAGES, finished, kept_since

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

SIZE = 64 << 20
CACHED = ("preprocessing", "feature extraction")
ON_DISK = [stage for stage in STAGES if stage != "download"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, to be filled or made read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes the rights of root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("stage", ON_DISK)
def test_full_disk_is_named_and_the_next_run_goes_on(
    stage: str, reference: Reference, processes: Processes, tally: Tally, often: bool, disk: Path
) -> None:
    if stage == "evaluation" and not often:
        pytest.skip("takes long: only with --faults")
    chance = random.Random(f"full {stage}")
    needed = size_of_results(stage, reference)
    for number in range(10 if often else 1):
        folder = reference.begin(stage, disk / str(number))
        ballast = disk / "ballast"
        room = chance.randrange(1 << 12, max(needed * 3 // 4, 1 << 13))
        fill(ballast, shutil.disk_usage(disk).free - room)
        code = processes.wait(processes.start(stage, folder))
        there, since = finished(stage, folder), kept_since(stage, folder)
        ballast.unlink()
        said = (folder / "log.txt").read_text() if (folder / "log.txt").exists() else ""
        assert code == 1, f"with {room} of {needed} bytes: {said}"
        expected = reference.results[stage]
        wrong = sum(expected.get(name) != piece for name, piece in there.items())
        wrong += bool(said) and "disk is full" not in said  # the log may have found no room
        processes.finish(stage, folder)
        wrong += finished(stage, folder) != expected
        kept = kept_since(stage, folder)
        lost = sum(kept.get(name) != when for name, when in since.items())
        tally.add(f"full disk, {stage}", lost, int(wrong))
        shutil.rmtree(folder)


def test_read_only_cache_is_read_and_a_missing_entry_is_named(
    reference: Reference, processes: Processes, tally: Tally, disk: Path
) -> None:
    folder = reference.begin("checkpointing", disk / "0")
    missing = next((folder / "cache" / "features").glob("[!.]*"))
    try:
        remount(disk, "ro")
        stages.features(folder, reference.config)
        whole = all(finished(stage, folder) == reference.results[stage] for stage in CACHED)
        tally.add("read-only cache, complete", 0, int(not whole))
    finally:
        remount(disk, "rw")
    shutil.rmtree(missing)
    try:
        remount(disk, "ro")
        with pytest.raises(OSError, match=r"read-only.*cache=PATH"):
            stages.features(folder, reference.config)
    finally:
        remount(disk, "rw")
    processes.finish("feature extraction", folder)
    whole = finished("feature extraction", folder) == reference.results["feature extraction"]
    tally.add("read-only cache, an entry missing", 0, int(not whole))


def size_of_results(stage: str, reference: Reference) -> int:
    """Bytes that a stage writes."""
    parts = {
        "preprocessing": ("cache/signals", "cache/events", "cache/blocks"),
        "feature extraction": ("cache/features",),
        "checkpointing": (stages.EXPERIMENT,),
        "evaluation": (stages.TABLES,),
    }[stage]
    files = [path for part in parts for path in (reference.folder / part).rglob("*")]
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files if path.is_file())


def fill(path: Path, n_bytes: int) -> None:
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, n_bytes)


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)
