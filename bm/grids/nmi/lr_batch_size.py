"""Learning rate, batch size, the delay from sound to brain, and autoreject, on four studies.

Run with ``dora grid nmi.lr_batch_size``, or without SLURM ``python -m scripts.run_grid
nmi.lr_batch_size gpus=0,1 ddp=2``. 96 experiments ((16 + 6 + 2) x 4 studies), each about 6
hours on two GPUs with the published code, less for the smaller studies. Expected: the published
choice (3e-4, 256, 150 ms) among the best; no figures are at hand.

With and without autoreject on 16 recordings, as published. Ours leaves segments out of training and
never interpolates (bm/segments/rejection.py).
"""

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi._studies import SEEDS, STUDIES, of_study, prepare

RATES = (1e-4, 3e-4, 6e-4, 1e-3)
BATCH_SIZES = (32, 64, 128, 256)
DELAYS_MS = (0, 50, 100, 200, 250, 300)  # 150 is that of the rows above
N_RECORDINGS = 16


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    prepare(launcher)
    for study in STUDIES:
        bound = of_study(launcher, study, SEEDS[0])
        for lr in RATES:
            for batch_size in BATCH_SIZES:
                bound({"optim.lr": lr, "optim.batch_size": batch_size})
        for delay_ms in DELAYS_MS:
            bound({"task.offset_meg_ms": delay_ms})
        for autoreject in (False, True):
            bound({"dset.n_recordings": N_RECORDINGS, "dset.autoreject": autoreject})
