"""MEG against EEG with as much data: 19 subjects and the same hours of training for each study.

Run with ``dora grid nmi.fair_compare_meg_eeg``, or without SLURM ``python -m scripts.run_grid
nmi.fair_compare_meg_eeg gpus=0,1 ddp=2``. 9 experiments (3 studies x 3 seeds), each some hours on
two GPUs. Expected: MEG stays far ahead of EEG (Table 2: 70.7 and 67.5 against 17.7 % with all
data); no figure of this comparison is at hand.

The paper also cut MEG down to the 128 sensors of the EEG. No published key does that, and here all
sensors are used: the comparison is fair in subjects and hours, not in sensors.
"""

from typing import Any

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.nmi._studies import SEEDS, of_study, prepare

N_SUBJECTS = 19
SHARES: dict[str, dict[str, Any]] = {
    "gwilliams2022": {"dset.remove_ratio": 0.62 * 0.7, "dset.n_recordings": 140},
    "broderick2019": {"dset.remove_ratio": 0.21 * 0.7, "dset.n_recordings": 380},
    "audio_mous": {"dset.remove_ratio": 0.0, "dset.n_recordings": 19},
}


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    prepare(launcher).bind_({"dset.n_subjects": N_SUBJECTS})
    for seed in SEEDS:
        for study, share in SHARES.items():
            of_study(launcher, study, seed)(share)
