"""What the paper's grids share: studies with the options that each needs, and seeds."""

from typing import Any

from dora import Launcher

from bm.train import main

SEEDS = (2036, 2037, 2038)
STUDIES: dict[str, dict[str, Any]] = {
    "audio_mous": {"dset.force_uid_assignement": True},
    "gwilliams2022": {},
    "broderick2019": {"test.wer_recordings": 100},
    "brennan2019": {},
}
MEL: dict[str, Any] = {"dset.features": ["MelSpectrum"]}
DEEP_MEL: dict[str, Any] = {**MEL, "feature_model": "deep_mel"}
REGRESSION: dict[str, Any] = {**MEL, "optim.loss": "mse"}


def prepare(launcher: Launcher) -> Launcher:
    """The published encoder on two GPUs, each with half of the batch and its own negatives."""
    return launcher.slurm_(gpus=2).bind_({"model": "clip_conv"})


def of_study(launcher: Launcher, study: str, seed: int) -> Launcher:
    """Experiments on one study with one seed."""
    return launcher.bind({"dset.selections": [study], "seed": seed}, STUDIES[study])


def judge_by_clip(launcher: Launcher, parent: dict[str, Any]) -> None:
    """Schedule the judgement, by contrastive loss, of a parent that was trained otherwise.

    It takes over the parent's weights and learns nothing; it starts when the parent is done.
    """
    of_parent = main.get_xp(launcher.bind(parent)._argv).sig
    launcher.slurm(gpus=1)(
        MEL,
        {
            "optim.max_batches": 1,
            "optim.lr": 0,
            "optim.epochs": 1,
            "continue_sig": of_parent,
            "continue_best": True,
        },
    )
