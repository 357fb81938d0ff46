"""Memory of a process of its own, so that nothing that another case left is counted."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

GIB = 1 << 30

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_fresh_process(
    work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Result of `work` in a process that begins with nothing."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


def used() -> int:
    """Bytes that this process holds now."""
    return _status("VmRSS")


def own() -> int:
    """Bytes that this process holds now, without files that are mapped."""
    return _status("RssAnon")


def peak() -> int:
    """Most bytes that this process has held since it began, or since `forget_peak`.

    Not `resource.getrusage`: its maximum includes the process that this one was forked from.
    """
    return _status("VmHWM")


def forget_peak() -> None:
    """Begin to measure the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    return kilobytes * 1024
