"""What a process may use of the machine, within a container or a job."""

import subprocess
import sys

import pytest

from bm.core import machine

GB = 1 << 30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Folder of control groups; the process is in the group ``job/step``."""
    own = tmp_path / "self"
    own.write_text("1:name=systemd:/\n0::/job/step\n")
    root = tmp_path / "groups"
    (root / "job" / "step").mkdir(parents=True)
    monkeypatch.setattr(machine, "CGROUPS", root)
    monkeypatch.setattr(machine, "OWN_GROUP", own)
    return root


def test_without_limits_all_free_memory_and_all_cores_count(groups):
    kernel = machine._statistics(machine.Path("/proc/meminfo"))
    assert abs(machine.available_memory() / 1024 - kernel["MemAvailable:"]) < 2e6
    assert machine.n_cores() == len(machine.os.sched_getaffinity(0))


def test_memory_of_a_job_is_what_it_may_have_less_what_it_uses(groups):
    (groups / "job" / "memory.max").write_text(f"{GB}\n")
    (groups / "job" / "memory.current").write_text(f"{GB // 2}\n")
    assert machine.available_memory() == GB // 2
    (groups / "job" / "memory.stat").write_text(f"anon 5\ninactive_file {GB // 4}\n")
    assert machine.available_memory() == 3 * GB // 4


def test_the_narrowest_of_several_groups_counts(groups):
    for name, limit in (("job", GB), ("job/step", GB // 8)):
        (groups / name / "memory.max").write_text(str(limit))
        (groups / name / "memory.current").write_text("0")
    assert machine.available_memory() == GB // 8
    (groups / "job" / "memory.max").write_text("max\n")
    assert machine.available_memory() == GB // 8


@pytest.mark.parametrize(("quota", "n"), [("100000 100000", 1), ("20000 100000", 1)])
def test_a_share_of_a_core_counts_as_one(groups, quota, n):
    (groups / "job" / "cpu.max").write_text(quota)
    assert machine.n_cores() == n


def test_no_quota_leaves_all_cores(groups):
    (groups / "job" / "cpu.max").write_text("max 100000")
    assert machine.n_cores() == len(machine.os.sched_getaffinity(0))


@pytest.mark.skipif(sys.platform != "linux", reason="told to glibc")
def test_memory_that_was_freed_is_not_cleared_anew_by_the_kernel():
    count = (
        "import resource, torch\n"
        "from bm.core.machine import keep_freed_memory\n"
        "if {keep}: assert keep_freed_memory()\n"
        "for _ in range(20): torch.ones(1 << 24)\n"  # until the heap has settled
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(10): torch.ones(1 << 24)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = [
        int(subprocess.check_output([sys.executable, "-c", count.format(keep=keep)], text=True))
        for keep in (False, True)
    ]
    assert faults[1] < faults[0] / 10
