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

SEEDS = (2036, 2037, 2038)
COMMON: dict[str, Any] = {
    "preset": "demo",
    "optim.epochs": 2,
    "+selections.synthetic.n_sessions": 1,
}
ROWS: dict[str, dict[str, Any]] = {
    "reference": {},
    "subject embedding instead of layer": {
        "simpleconv.subject_layers": False,
        "simpleconv.subject_dim": 64,
    },
    "clamp at 100": {"norm.max_scale": 100},
    "no dropout of sensors": {"simpleconv.merger_dropout": 0},
    "ReLU instead of GELU": {"simpleconv.gelu": False},
    "no skip connections": {"simpleconv.skip": False},
    "no final convolutions": {"simpleconv.complex_out": False},
    "no initial 1x1 convolution": {"simpleconv.initial_linear": 0},
    "no spatial attention": {"simpleconv.merger": False},
    "no gated linear units": {"simpleconv.glu": 0},
    "no subject layer": {"simpleconv.subject_layers": False},
    "no clamping": {"norm.max_scale": 1e12},
}
PAPER: dict[str, float] = {
    "subject embedding instead of layer": 0.5,
    "clamp at 100": 0.1,
    "no dropout of sensors": -0.4,
    "ReLU instead of GELU": -1.4,
    "no skip connections": -2.5,
    "no final convolutions": -2.7,
    "no initial 1x1 convolution": -3.1,
    "no spatial attention": -3.3,
    "no gated linear units": -6.8,
    "no subject layer": -14.9,
    "no clamping": -33.6,
}
"""Change of top-10 accuracy in points, mean of four real datasets (Défossez et al. 2023)."""


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    launcher.bind_(COMMON)
    for seed in SEEDS:
        for row in ROWS.values():
            launcher({"seed": seed}, row)
