"""Each ablation of the paper, with three seeds, on six simulated listeners. Not real data.

Run with ``dora grid ablation_simulated``; without SLURM, ``python -m scripts.run_grid
ablation_simulated``: 36 runs of about a minute each on one idle core. ``python -m
scripts.ablation_table`` makes docs/ablation-simulated.md of them. Expected: well above chance but
without clamping, where artefacts leave nothing to learn; without the subject layer less than half
of the reference.
"""

from typing import Any

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi import ablation_final

SEEDS = (2036, 2037, 2038)
COMMON: dict[str, Any] = {
    "preset": "demo",
    "optim.epochs": 2,
    "optim.precision": "fp32",  # the same numbers on every machine
    "+selections.synthetic.n_sessions": 1,
}
PAPER: dict[str, float] = {
    "subject embedding": 0.5,
    "clamp at 100": 0.1,
    "no attention dropout": -0.4,
    "ReLU": -1.4,
    "no skip": -2.5,
    "no final convolutions": -2.7,
    "no initial 1x1": -3.1,
    "no spatial attention": -3.3,
    "no GLU": -6.8,
    "no subject layer": -14.9,
    "no clamp": -33.6,
}
"""Change of top-10 accuracy in points, mean of four real datasets (Défossez et al. 2023)."""
ROWS: dict[str, dict[str, Any]] = {row: ablation_final.ROWS[row] for row in ("reference", *PAPER)}
"""Those of the published grid, from the least harm to the most."""


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    launcher.bind_(COMMON)
    for seed in SEEDS:
        for row in ROWS.values():
            launcher({"seed": seed}, row)
