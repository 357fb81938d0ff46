"""The disk cache: one build among many processes, and nothing half-written whatever happens."""

import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bm.core.cache import Cache, find_fault, write_atomically, write_json
from bm.core.hashing import digest, file_checksum, file_fingerprint, text_id
from bm.core.messages import DataError

KEY = {"study": "s", "sample_rate": 120.0, "version": 1}

SLOW_BUILD = """
    import sys, time
    from pathlib import Path
    from bm.core.cache import Cache

    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])

    def build(entry):
        with open(folder / "builds.txt", "a") as log:
            log.write("built\\n")
        (entry / "half.bin").write_bytes(b"1" * 1000)
        (folder / "started").touch()
        time.sleep(seconds)
        (entry / "other_half.bin").write_bytes(b"2" * 1000)

    print(Cache(folder / "cache").entry("signals", {"a": 1}, build, "rec"))
"""


def write_text(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "data.txt").write_text(text) and None


def never(folder: Path) -> None:
    raise AssertionError(f"{folder} was built again")


def visible(folder: Path) -> list[str]:
    """Everything but the lock files, hidden or not."""
    return sorted(path.name for path in folder.rglob("*") if path.suffix != ".lock")


def start(code: str, *args: object, env: dict[str, str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE)


def wait_for(path: Path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


# Keys


def test_entry_is_built_once_and_then_found(cache):
    first = cache.entry("signals", KEY, write_text("one"), "study/rec 1")
    assert (first / "data.txt").read_text() == "one"
    assert first.name.startswith("study_rec_1-")
    assert cache.entry("signals", KEY, never, "study/rec 1") == first
    assert Cache(cache.folder).entry("signals", KEY, never, "study/rec 1") == first


@pytest.mark.parametrize("change", [{"version": 2}, {"sample_rate": 100.0}, {"study": "t"}])
def test_every_part_of_the_key_makes_another_entry(cache, change):
    first = cache.entry("signals", KEY, write_text("one"))
    other = cache.entry("signals", {**KEY, **change}, write_text("two"))
    assert (first / "data.txt").read_text() == "one"
    assert (other / "data.txt").read_text() == "two"


def test_order_of_the_key_does_not_matter(cache):
    first = cache.entry("signals", KEY, write_text("one"))
    assert cache.entry("signals", dict(reversed(KEY.items())), never) == first


def test_digests_are_the_same_in_every_process(python_env):
    code = """
        from bm.core.hashing import digest, text_id
        print(digest({"b": [1, 2.5, None], "a": "Käse"}), text_id("the cat", 3))
    """
    outputs = set()
    for seed in ("0", "1"):
        process = start(code, env={**python_env, "PYTHONHASHSEED": seed})
        outputs.add(process.communicate()[0].strip())
    here = f"{digest({'a': 'Käse', 'b': [1, 2.5, None]})} {text_id('the cat', 3)}"
    assert outputs == {here}


def test_text_ids_are_distinct_positive_and_fit_int64():
    ids = [text_id(word, index) for word in ("a", "b", "ab") for index in range(1000)]
    assert len(set(ids)) == 3000
    assert all(0 <= number < 2**63 for number in ids)
    assert text_id("a", "b") != text_id("ab")


def test_fingerprint_changes_when_a_file_is_replaced(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    before = file_fingerprint([file])
    assert file_fingerprint([file]) == before
    file.write_bytes(b"four")
    assert file_fingerprint([file]) != before


# Many processes


def test_two_cold_processes_build_once(tmp_path, python_env):
    processes = [start(SLOW_BUILD, tmp_path, 1.0, env=python_env) for _ in range(2)]
    entries = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(entries) == 1
    assert (tmp_path / "builds.txt").read_text() == "built\n"
    assert find_fault(Path(entries.pop())) is None


def test_build_killed_half_way_leaves_nothing_and_the_next_one_succeeds(tmp_path, python_env):
    killed = start(SLOW_BUILD, tmp_path, 600.0, env=python_env)
    wait_for(tmp_path / "started")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    unfinished = [name for name in visible(tmp_path / "cache" / "signals") if name[0] != "."]
    assert unfinished == ["half.bin"]  # inside a hidden folder

    again = start(SLOW_BUILD, tmp_path, 0.0, env=python_env)
    entry = Path(again.communicate()[0].strip())
    assert again.returncode == 0
    assert find_fault(entry) is None
    expected = ["entry.json", "half.bin", "other_half.bin", entry.name]
    assert visible(tmp_path / "cache" / "signals") == sorted(expected)


# Corruption


def flip_a_bit(entry: Path) -> None:
    content = bytearray((entry / "data.txt").read_bytes())
    content[1] ^= 1
    (entry / "data.txt").write_bytes(content)


def truncate(entry: Path) -> None:
    os.truncate(entry / "data.txt", 2)


def delete_a_file(entry: Path) -> None:
    (entry / "data.txt").unlink()


def truncate_the_manifest(entry: Path) -> None:
    os.truncate(entry / "entry.json", 10)


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, delete_a_file, truncate_the_manifest])
def test_corrupt_entry_is_set_aside_named_and_rebuilt(cache, caplog, damage):
    entry = cache.entry("signals", KEY, write_text("sound"))
    damage(entry)
    with caplog.at_level(logging.WARNING):
        again = Cache(cache.folder).entry("signals", KEY, write_text("sound"))
    assert again == entry
    assert (again / "data.txt").read_text() == "sound"
    (aside,) = entry.parent.glob("*.corrupt-*")
    assert str(entry) in caplog.text
    assert str(aside) in caplog.text


def test_only_files_whose_time_changed_are_read_again(cache, monkeypatch):
    entry = cache.entry("signals", KEY, write_text("sound"))
    read = []
    monkeypatch.setattr("bm.core.cache.file_checksum", lambda file: read.append(file.name))
    assert Cache(cache.folder).find("signals", KEY) == entry
    assert read == []
    modified = (entry / "data.txt").stat().st_mtime_ns
    os.utime(entry / "data.txt", ns=(modified, modified + 1))
    assert Cache(cache.folder).find("signals", KEY) is None  # of another checksum, as it seems
    assert read == ["data.txt"]


def test_copied_entry_is_sound_and_all_of_it_can_be_compared(cache, tmp_path):
    entry = cache.entry("signals", KEY, write_text("sound"))
    copy = tmp_path / "copy" / "signals" / entry.name
    shutil.copytree(entry, copy, copy_function=shutil.copyfile)  # with times of its own
    assert Cache(tmp_path / "copy").find("signals", KEY) == copy
    times = (copy / "data.txt").stat()
    flip_a_bit(copy)
    os.utime(copy / "data.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find_fault(copy) == "data.txt has another checksum"


# Failures


def test_failed_build_leaves_nothing_and_its_error_passes(cache):
    def fail(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise DataError("rec 1: row 7 is empty")

    with pytest.raises(DataError, match="row 7"):
        cache.entry("signals", KEY, fail)
    assert visible(cache.folder / "signals") == []
    assert cache.entry("signals", KEY, write_text("one")).is_dir()


def test_forbidden_source_file_is_not_blamed_on_the_cache(cache, tmp_path):
    def fail(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "raw.fif"))

    with pytest.raises(PermissionError, match=r"raw\.fif"):
        cache.entry("signals", KEY, fail)


def fill_by_write(folder: Path) -> None:
    with open(folder / "data.bin", "wb") as file:
        file.write(b"1" * 8_000_000)


def fill_by_numpy(folder: Path) -> None:
    np.save(folder / "data.npy", np.ones(1_000_000))


def fill_by_torch(folder: Path) -> None:
    torch.save({"weight": torch.ones(2_000_000)}, folder / "state.pt")


def fill_by_parquet(folder: Path) -> None:
    table = pd.DataFrame({"x": np.random.default_rng(0).normal(size=1_000_000)})
    table.to_parquet(folder / "table.parquet")


def error_on_full_disk(write: Callable[[], object]) -> str:
    """Message of the OSError; the error itself would keep torch's file open, and the disk full."""
    with pytest.raises(OSError, match="disk is full") as caught:
        write()
    message = str(caught.value)
    del caught
    gc.collect()
    return message


FILLS = [fill_by_write, fill_by_numpy, fill_by_torch, fill_by_parquet]


@pytest.mark.parametrize("fill", FILLS)
def test_full_disk_is_named_and_leaves_nothing_half_written(small_disk, fill):
    cache = Cache(small_disk / "cache")
    kept = cache.entry("signals", {"a": 1}, write_text("kept"))
    message = error_on_full_disk(lambda: cache.entry("signals", {"a": 2}, fill))
    assert f"Cannot write to {cache.folder}: the disk is full" in message
    assert "cache=PATH" in message
    assert visible(cache.folder / "signals") == sorted(["data.txt", "entry.json", kept.name])
    assert find_fault(kept) is None
    assert cache.entry("signals", {"a": 2}, write_text("small")).is_dir()


def test_file_replaced_on_a_full_disk_stays_as_it_was(small_disk):
    target = small_disk / "state.pt"
    write_atomically(target, lambda path: torch.save({"epoch": 1}, path))
    state = {"epoch": 2, "weight": torch.ones(2_000_000)}
    message = error_on_full_disk(
        lambda: write_atomically(target, lambda path: torch.save(state, path))
    )
    assert f"Cannot write to {small_disk}: the disk is full" in message
    assert visible(small_disk) == ["state.pt"]
    assert torch.load(target, weights_only=True) == {"epoch": 1}


def test_finished_entry_is_read_from_a_read_only_disk(small_disk):
    cache = Cache(small_disk / "cache")
    entry = cache.entry("signals", KEY, write_text("one"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    read_only = Cache(cache.folder)
    assert read_only.entry("signals", KEY, never) == entry
    with pytest.raises(OSError, match=r"small_disk/cache: .*read-only"):
        read_only.entry("signals", {**KEY, "version": 2}, write_text("two"))


def test_atomic_write_replaces_all_or_nothing(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"epoch": 1})
    before = file_checksum(target)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, fail)
    assert visible(tmp_path) == ["a.json"]
    assert file_checksum(target) == before
    write_json(target, {"epoch": 2})
    assert target.read_text() == '{\n "epoch": 2\n}'
