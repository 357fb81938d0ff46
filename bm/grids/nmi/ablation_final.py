"""Ablations: what each part of the encoder and of the scaling is worth, on four studies.

Run with ``dora grid nmi.ablation_final``, or without SLURM ``python -m scripts.run_grid
nmi.ablation_final gpus=0,1 ddp=2``. 144 experiments (12 rows x 4 studies x 3 seeds), each about 6
hours on two GPUs with the published code, less for the smaller studies.

Expected top-10 accuracy in percent, mean of 3 seeds (saved output of the published notebooks), and
the mean change over the studies:

=======================  ======  ======  =====  =====  ======
row                      Schoff  Gwill   Brod   Bren   change
=======================  ======  ======  =====  =====  ======
reference                  67.3    66.7   13.4   25.7       0
subject embedding          64.6    66.7   14.7   29.4    +0.5
clamp at 100               66.9    66.5   13.3   27.1    +0.1
no attention dropout       67.3    65.2   12.3   26.8    -0.4
ReLU                       65.6    64.9   12.5   24.6    -1.4
no skip                    65.3    62.4   11.0   24.3    -2.5
no final convolutions      67.2    65.1   11.2   19.0    -2.7
no initial 1x1             62.7    64.0   11.9   22.1    -3.1
no spatial attention       65.6    61.9   11.9   20.6    -3.3
no GLU                     66.7    66.3    6.9    6.0    -6.8
no subject layer           42.4    44.3    6.9   20.2   -14.9
no clamp                    1.5    22.3    1.0   14.1   -33.6
=======================  ======  ======  =====  =====  ======
"""

from typing import Any

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi._studies import SEEDS, STUDIES, of_study, prepare

ROWS: dict[str, dict[str, Any]] = {
    "reference": {},
    "no spatial attention": {"simpleconv.merger": False},
    "no attention dropout": {"simpleconv.merger_dropout": 0.0},
    "no GLU": {"simpleconv.glu": 0},
    "no initial 1x1": {"simpleconv.initial_linear": 0},
    "ReLU": {"simpleconv.gelu": False},
    "no skip": {"simpleconv.skip": False},
    "no final convolutions": {"simpleconv.complex_out": False},
    "no subject layer": {"simpleconv.subject_layers": False},
    "subject embedding": {"simpleconv.subject_layers": False, "simpleconv.subject_dim": 64},
    "clamp at 100": {"norm.max_scale": 100},
    "no clamp": {"norm.max_scale": 1e12},
}


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    prepare(launcher).bind_({"optim.batch_size": 256})
    for seed in SEEDS:
        for study in STUDIES:
            bound = of_study(launcher, study, seed)
            for row in ROWS.values():
                bound(row)
