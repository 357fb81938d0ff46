"""Number of mel bands, for three ways to train on mel spectrograms, on four studies.

Run with ``dora grid nmi.nmels``, or without SLURM ``python -m scripts.run_grid nmi.nmels gpus=0,1
ddp=2``. 144 experiments (4 numbers x 3 ways x 4 studies x 3 seeds), each about 6 hours on two GPUs
with the published code, less for the smaller studies. Expected with 120 bands, top-10 accuracy in
percent (Table 2):

================  =======  =========  =========  ===========
way               Brennan  Broderick  Gwilliams  Schoffelen
================  =======  =========  =========  ===========
regression            6.0        1.0       12.4         20.6
contrastive           8.0        9.7       55.1         55.1
DeepMel              24.7       15.4       64.4         61.2
================  =======  =========  =========  ===========
"""

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi._studies import DEEP_MEL, MEL, REGRESSION, SEEDS, STUDIES, of_study, prepare

N_MELS = (20, 40, 80, 120)


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    prepare(launcher)
    for seed in SEEDS:
        for study in STUDIES:
            for n_mels in N_MELS:
                bands = {"dset.features_params.MelSpectrum.n_mels": n_mels}
                bound = of_study(launcher, study, seed).bind(bands)
                for way in (MEL, DEEP_MEL, REGRESSION):
                    bound(way)
