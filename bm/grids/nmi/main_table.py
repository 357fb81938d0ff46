"""Main results (Table 2): top-10 segment accuracy of four studies and five ways to train.

Run with ``dora grid nmi.main_table``: 60 experiments (4 studies x 5 rows x 3 seeds), each about 6
hours on two GPUs. Expected top-10 accuracy in percent, mean of 3 seeds:

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

from dora import Explorer, Launcher

SEEDS = (2036, 2037, 2038)
SELECTIONS: dict[str, dict[str, Any]] = {
    "audio_mous": {"dset.force_uid_assignement": True},
    "gwilliams2022": {},
    "broderick2019": {"test.wer_recordings": 100},
    "brennan2019": {},
}
MEL = {"dset.features": ["MelSpectrum"]}
ROWS: dict[str, dict[str, Any]] = {
    "wav2vec 2.0": {},
    "random model": {"optim.max_batches": 1, "optim.epochs": 1, "test.wer_random": True},
    "mel, contrastive": MEL,
    "DeepMel": {**MEL, "feature_model": "deep_mel"},
    "mel, regression": {**MEL, "optim.loss": "mse"},
}


@Explorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    launcher.slurm_(gpus=1).bind_({"model": "clip_conv"})
    for seed in SEEDS:
        for selection, options in SELECTIONS.items():
            bound = launcher.bind({"dset.selections": [selection], "seed": seed}, options)
            for row in ROWS.values():
                bound(row)
