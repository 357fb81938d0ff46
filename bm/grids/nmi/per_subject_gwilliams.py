"""How accuracy on three Gwilliams subjects grows with the number of subjects trained on.

Run with ``dora grid nmi.per_subject_gwilliams``, or without SLURM ``python -m scripts.run_grid
nmi.per_subject_gwilliams gpus=0,1 ddp=2``. 27 experiments (3, 6, ... 27 subjects x 3 seeds), up to
about 6 hours on two GPUs with the published code. Expected: accuracy rises with the number of
subjects, up to the neighbourhood of 70.7 % top-10 (Table 2, tested on all 27).
"""

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi._studies import SEEDS, of_study, prepare


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    prepare(launcher).bind_({"dset.n_subjects_test": 3})
    for seed in SEEDS:
        for n_subjects in range(3, 28, 3):
            of_study(launcher, "gwilliams2022", seed)({"dset.n_subjects": n_subjects})
