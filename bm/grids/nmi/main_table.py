"""Main results (Table 2): top-10 segment accuracy of four studies and five ways to train.

Run with ``dora grid nmi.main_table``, or without SLURM ``python -m scripts.run_grid nmi.main_table
gpus=0,1 ddp=2``; then ``python -m scripts.run_eval_probs grid_name=nmi.main_table``. 72
experiments: 4 studies x 5 rows x 3 seeds, and 12 that judge the regression by the contrastive loss,
which start when their parents are done. Cost: about 6 hours on two GPUs each with the published
code, less for the smaller studies; minutes for random models and judgements.

Expected top-10 accuracy in percent, mean of 3 seeds:

==================  =======  =========  =========  ===========
row                 Brennan  Broderick  Gwilliams  Schoffelen
==================  =======  =========  =========  ===========
random model            5.3        0.5        0.7          0.8
mel, regression         6.0        1.0       12.4         20.6
mel, contrastive        8.0        9.7       55.1         55.1
DeepMel                24.7       15.4       64.4         61.2
wav2vec 2.0            25.7       17.7       70.7         67.5
==================  =======  =========  =========  ===========
"""

from typing import Any

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi._studies import (
    DEEP_MEL,
    MEL,
    REGRESSION,
    SEEDS,
    STUDIES,
    judge_by_clip,
    of_study,
    prepare,
)

ROWS: dict[str, dict[str, Any]] = {
    "wav2vec 2.0": {},
    "random model": {"optim.max_batches": 1, "optim.epochs": 1, "test.wer_random": True},
    "mel, contrastive": MEL,
    "DeepMel": DEEP_MEL,
    "mel, regression": REGRESSION,
}


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    prepare(launcher)
    for seed in SEEDS:
        for study in STUDIES:
            bound = of_study(launcher, study, seed)
            for row in ROWS.values():
                bound(row)
            judge_by_clip(bound, REGRESSION)
