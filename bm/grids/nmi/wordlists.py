"""Words out of context: training on the word lists of Schoffelen 2019, in short windows.

Run with ``dora grid nmi.wordlists``, or without SLURM ``python -m scripts.run_grid nmi.wordlists
gpus=0,1 ddp=2``. 3 experiments (3 seeds), some hours each on two GPUs. Windows reach from 0.3 s
before to 0.5 s after a word. Expected: well above chance, below sentences (67.5 % top-10, Table 2);
no figure is at hand.
"""

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi._studies import SEEDS, prepare


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    prepare(launcher).bind_(
        {
            "dset.selections": ["audio_mous_wl"],
            "dset.tmin": -0.3,
            "dset.tmax": 0.5,
            "optim.batch_size": 128,
        }
    )
    for seed in SEEDS:
        launcher({"seed": seed})
