"""How accuracy on ten Schoffelen subjects grows with the number of subjects trained on.

Run with ``dora grid nmi.per_subject_mous``, or without SLURM ``python -m scripts.run_grid
nmi.per_subject_mous gpus=0,1 ddp=2``. 30 experiments (10, 20, ... 100 subjects x 3 seeds; there are
96), up to about 6 hours on two GPUs with the published code. Expected: accuracy rises with the
number of subjects, up to the neighbourhood of 67.5 % top-10 (Table 2, tested on all 96).
"""

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi._studies import SEEDS, of_study, prepare


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    prepare(launcher).bind_({"dset.n_subjects_test": 10})
    for seed in SEEDS:
        for n_subjects in range(10, 101, 10):
            of_study(launcher, "audio_mous", seed)({"dset.n_subjects": n_subjects})
