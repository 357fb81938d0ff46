"""What this machine lets a process use, within the limits of its job: cores, memory, bf16."""

import ctypes
import os
import sys
from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of mallopt, in malloc.h
BF16_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512"}
"""Parts of a CPU that multiply bf16, the fastest first, by the name of the capability."""


def available_memory() -> int:
    """Bytes of host memory that can still be taken, within what a container or a job may have."""
    rooms = [_free_memory()]
    for group in _groups():
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            file_copies = _statistics(group / "memory.stat").get("inactive_file", 0)
            rooms.append(limit - used + file_copies)
    return max(0, min(rooms))


def n_cores() -> int:
    """Cores that may be used, within what a container or a job may have."""
    cores = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()]
    for group in _groups():
        try:
            quota, period = (group / "cpu.max").read_text().split()
            cores.append(-(-int(quota) // int(period)))
        except (OSError, ValueError):  # no limit: the file is missing, or says "max"
            continue
    return max(1, min(number for number in cores if number))


def bf16_unit(device: str) -> str | None:
    """What multiplies bf16 on a device, by name; None: nothing does, so that it would be slow.

    Parameters
    ----------
    device : "cpu", "cuda", "mps", ...
    """
    kind = torch.device(device).type
    if kind == "cuda":
        with torch.cuda.device(device):
            has_unit = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.cuda.get_device_name() if has_unit else None
    if kind != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    found = torch.cpu.get_capabilities()
    return next((name for key, name in BF16_UNITS.items() if found.get(key)), None)


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next large arrays.

    Otherwise the kernel clears each large array anew, page by page: on a CPU that costs a large
    batch more than the arithmetic. Returns whether the C library can be told so (glibc can).
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(library, "mallopt", None)
    if mallopt is None:
        return False
    largest = 2**31 - 1
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, largest))


def _groups() -> list[Path]:
    """Control groups (version 2) of this process, its own first; each sets limits."""
    try:
        lines = OWN_GROUP.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        if line.startswith("0::"):
            own = CGROUPS / line.removeprefix("0::").lstrip("/")
            return [group for group in (own, *own.parents) if group.is_relative_to(CGROUPS)]
    return []


def _free_memory() -> int:
    """Bytes that are free, or hold nothing but copies of files."""
    kernel = _statistics(Path("/proc/meminfo"))
    if "MemAvailable:" in kernel:
        return kernel["MemAvailable:"] * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # elsewhere, half of it


def _number(path: Path) -> int | None:
    """Number in a file; None where there is no file, or no limit."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _statistics(path: Path) -> dict[str, int]:
    """Numbers of a file of lines such as ``name 12 kB``."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
