"""Where an experiment's metrics go beside ``history.json``: TensorBoard and Weights & Biases.

Enters: the whole history, after each epoch. Leaves: ``STAGE/METRIC`` (``train/loss``,
``test/segment_top10``) against the number of the epoch, by the same name everywhere; in
``history.json`` these are the keys of an epoch and of a stage.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bm.training import History

Publish = Callable[[History], None]


def flat_metrics(metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    """Metrics of an epoch by ``STAGE/METRIC``."""
    return {
        f"{stage}/{name}": value
        for stage, values in metrics.items()
        for name, value in values.items()
    }


def publish_to(sinks: Sequence[Publish]) -> Publish:
    """Tell several the history."""

    def publish(history: History) -> None:
        for sink in sinks:
            sink(history)

    return publish


class TensorBoard:
    """Writes event files into the folder ``tensorboard`` of an experiment.

    A run that goes on writes all epochs anew and hides what an earlier one wrote, so the curves are
    those of ``history.json`` whenever it was killed.

    Parameters
    ----------
    folder : of the experiment.

    Raises
    ------
    ValueError : the package isn't installed.
    """

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional
        except ImportError as error:
            raise ValueError(
                "tensorboard=true needs the package of this name: pip install tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=0)
        self._n_written = 0

    def __call__(self, history: History) -> None:
        """Write the epochs that are new."""
        for epoch in range(self._n_written, len(history)):
            for name, value in flat_metrics(history[epoch]).items():
                self._writer.add_scalar(name, value, epoch + 1)
        self._writer.flush()
        self._n_written = len(history)


class WeightsAndBiases:
    """Logs to Weights & Biases; with WANDB_MODE=offline into the folder ``wandb`` only.

    The run bears the experiment's signature, and one that goes on continues it.

    Parameters
    ----------
    folder, sig : of the experiment.
    project, group : where it appears.
    config : the experiment's configuration, in plain values.

    Raises
    ------
    ValueError : the package isn't installed.
    """

    def __init__(self, folder: Path, sig: str, project: str, group: str, config: dict[str, Any]):
        try:
            import wandb  # slow to import, and optional
        except ImportError as error:
            raise ValueError(
                "wandb.use_wandb=true needs the package of this name: pip install wandb"
            ) from error
        self._run = wandb.init(
            project=project, group=group, id=sig, name=sig, dir=str(folder), config=config,
            resume="allow",
        )  # fmt: skip
        self._n_logged = max(self._run.starting_step - 1, 0)

    def __call__(self, history: History) -> None:
        """Log the epochs that are new."""
        for epoch in range(self._n_logged, len(history)):
            self._run.log(flat_metrics(history[epoch]), step=epoch + 1, commit=True)
        self._n_logged = len(history)
