"""On the simulated study: the paper's two strongest ablations with three seeds, and two controls.

Run with ``dora grid demo``, or without SLURM ``python -m scripts.run_grid demo jobs=2``; about two
minutes for each of 11 experiments on two cores.
Expected: reference well above both ablations (no subject layer, no clamp), controls at chance.
docs/ablation-simulated.md has figures of all ablations.
"""

from typing import Any

from dora import Launcher

from bm.grids._explorers import ClipExplorer

SEEDS = (2036, 2037, 2038)
ROWS: dict[str, dict[str, Any]] = {
    "reference": {},
    "no subject layer": {"simpleconv.subject_layers": False},
    "no clamp": {"norm.max_scale": 1e12},
}
CONTROLS: dict[str, dict[str, Any]] = {
    "noise": {"dset.control": "noise"},
    "shuffled pairs": {"dset.control": "shuffled"},
}


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    launcher.bind_({"preset": "demo", "optim.epochs": 2})
    with launcher.job_array():
        for seed in SEEDS:
            for row in ROWS.values():
                launcher({"seed": seed}, row)
        for control in CONTROLS.values():
            launcher(control)
