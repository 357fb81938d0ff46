"""The paper's two strongest ablations and two controls, on four simulated listeners of six minutes.

Run with ``dora grid demo``, or without SLURM ``python -m scripts.run_grid demo jobs=2``: nine
experiments of some ten seconds each, to try out a machine or a cluster, the tables and the figures.
Expected top-10 accuracy: reference about 80 %, no subject layer about 50 %, no clamp and both
controls at chance (7.5 %); with two processes each, one of the two seeds without clamp began to
learn in its third epoch (28.6 %). One experiment starts from the first when that is done.
docs/ablation-simulated.md has all ablations, with more listeners.
"""

from typing import Any

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi import ablation_final
from bm.train import main

SEEDS = (2036, 2037)
SMALL: dict[str, Any] = {
    "preset": "demo",
    "dset.selections": ["fake"],
    "+selections.fake.n_subjects": 4,
    "+selections.fake.n_sensors": 32,
    "+selections.fake.n_minutes": 6,
    "+selections.fake.snr": 0.1,
    "dset.features_params.MelSpectrum.n_mels": 16,
    "simpleconv.hidden.meg": 24,
    "simpleconv.depth": 4,
    "simpleconv.merger_channels": 16,
    "simpleconv.merger_pos_dim": 32,
    "simpleconv.initial_linear": 16,
    "optim.batch_size": 32,
    "optim.lr": 3e-3,
    "optim.epochs": 4,
    "eval_every": 1,
}
ROWS: dict[str, dict[str, Any]] = {
    row: ablation_final.ROWS[row] for row in ("reference", "no subject layer", "no clamp")
}
CONTROLS: dict[str, dict[str, Any]] = {
    "noise": {"dset.control": "noise"},
    "shuffled pairs": {"dset.control": "shuffled"},
}


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    launcher.bind_(SMALL)
    with launcher.job_array():
        for seed in SEEDS:
            for row in ROWS.values():
                launcher({"seed": seed}, row)
        for control in CONTROLS.values():
            launcher(control)
    parent = main.get_xp(launcher.bind(seed=SEEDS[0])._argv).sig
    launcher({"continue_sig": parent, "optim.epochs": 1})
