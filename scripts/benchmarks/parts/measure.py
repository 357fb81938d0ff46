"""Timing with repeats, and what becomes of the figures: rows, a table, JSON lines.

Cases are run in turn, round by round, so that whatever else the machine does meets all alike.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import bm

PACKAGES = ("torch", "numpy", "mne", "julius", "transformers")


@dataclass(frozen=True)
class Row:
    """A figure of a bench.

    Attributes
    ----------
    bench, case, unit : what was measured, on what, in which unit.
    median, min, max, n : of the repeats.
    ratio : how much better than the reference of the same run, above 1 is better; None: no
        reference.
    """

    bench: str
    case: str
    unit: str
    median: float
    min: float
    max: float
    n: int
    ratio: float | None = None


def in_turn(cases: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Figures of each case: all are run once to warm up, then in turn, `repeats` times."""
    for case in cases.values():
        case()
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            figures[name].append(case())
    return figures


def rows_of(
    bench: str,
    unit: str,
    figures: Mapping[str, Sequence[float]],
    reference: str | None = None,
    less_is_better: bool = False,
) -> list[Row]:
    """A row per case, with the ratio of its median to that of the reference."""
    rows = []
    for case, values in figures.items():
        median = statistics.median(values)
        ratio = None
        if reference is not None and case != reference:
            ratio = median / statistics.median(figures[reference])
            ratio = 1 / ratio if less_is_better else ratio
        rows.append(Row(bench, case, unit, median, min(values), max(values), len(values), ratio))
    return rows


def seconds(work: Callable[[], object], device: str = "cpu") -> float:
    """Time that `work` takes, on the device too."""
    synchronize(device)
    begin = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begin


def synchronize(device: str) -> None:
    """Wait until the device has done all it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def as_table(rows: Sequence[Row]) -> str:
    """Rows for people."""
    head = ("bench", "case", "median", "min", "max", "n", "unit", "ratio")
    lines: list[tuple[str, ...]] = [head]
    for row in rows:
        figures = [f"{value:.4g}" for value in (row.median, row.min, row.max)]
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append((row.bench, row.case, *figures, str(row.n), row.unit, ratio))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def append_json(path: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """Add a line of JSON per row, with all that is needed to make sense of it later."""
    about = {
        "machine": machine(),
        "versions": _versions(),
        "commit": _commit(),
        "settings": dict(settings),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({**asdict(row), **about}) + "\n")


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory, and the GPU if there is one."""
    about: dict[str, Any] = {"processor": _processor(), "n_cores": len(os.sched_getaffinity(0))}
    about["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    return about


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "bm": bm.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Commit of the code in use, marked where files differ from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
