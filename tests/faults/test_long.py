"""A long run takes no more memory and no more open files at its end than soon after its start."""

import gc
from dataclasses import replace

import psutil
import pytest
from fault_suite import Reference, Tally

from bm.build import build_solver

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

MOST_GROWTH = 16 << 20
"""Bytes: allocators keep some of what they get; the history grows by some kilobytes."""


def test_memory_and_open_files_stay_as_they_are(
    reference: Reference, tally: Tally, often: bool
) -> None:
    """In full 50 epochs of 40 steps: 2,000."""
    n_epochs, n_steps = (50, 40) if often else (9, 4)
    config = reference.config
    optim = replace(config.optim, epochs=n_epochs, max_batches=n_steps)
    config = replace(config, optim=optim, early_stop_patience=1000, eval_every=10)
    process, used, n_files = psutil.Process(), [], []

    def look(history: object) -> None:
        used.append(process.memory_info().rss)
        n_files.append(process.num_fds())

    gc.collect()  # what earlier tests left would go in the midst of this one
    solver = build_solver(config, reference.base / "long", look)
    solver.run()
    assert len(used) == n_epochs
    third = n_epochs // 3
    growth = max(used[-third:]) - max(used[third : 2 * third])
    wrong = growth > MOST_GROWTH or n_files[-1] > n_files[third]
    print(f"{growth:,} bytes more, {n_files[third]} then {n_files[-1]} files open")  # noqa: T201
    tally.add(f"memory and open files over {n_epochs * n_steps:,} steps", 0, int(wrong))
