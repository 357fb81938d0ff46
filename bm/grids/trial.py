"""Four experiments of seconds on two tiny simulated listeners: to try out a machine or a cluster.

Run with ``dora grid trial``, or without SLURM ``python -m scripts.run_grid trial jobs=2``. Three
seeds as one job array, and one experiment that starts from the first of them when that is done.
Less than a minute each. Expected: the training loss falls; accuracies say nothing.
"""

from typing import Any

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.train import main

SEEDS = (2036, 2037, 2038)
SMALL: dict[str, Any] = {
    "preset": "demo",
    "dset.selections": ["fake"],
    "dset.features_params.MelSpectrum.n_mels": 16,
    "simpleconv.hidden.meg": 16,
    "simpleconv.depth": 4,
    "simpleconv.merger_channels": 12,
    "simpleconv.merger_pos_dim": 32,
    "simpleconv.initial_linear": 12,
    "optim.batch_size": 16,
    "optim.epochs": 8,
    "early_stop_patience": 8,
}


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    launcher.bind_(SMALL)
    with launcher.job_array():
        for seed in SEEDS:
            launcher(seed=seed)
    parent = main.get_xp(launcher.bind(seed=SEEDS[0])._argv).sig
    launcher({"continue_sig": parent, "optim.epochs": 1})
