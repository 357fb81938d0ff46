"""What all grids share: the table that `dora grid` and `scripts.run_grid` print of them."""

from typing import Any

import treetable
from dora import Explorer
from dora.shep import Sheep

Row = dict[str, Any]
History = list[dict[str, dict[str, float]]]


class ClipExplorer(Explorer):
    """A grid whose table shows progress, losses and accuracies.

    Segment accuracies stand beside chance. ``wer`` is the word monitor, not the paper's accuracy.
    """

    def get_grid_metrics(self) -> list[Any]:
        """Columns of the table."""
        return [
            treetable.group("train", [treetable.leaf("epoch"), treetable.leaf("loss", ".3f")]),
            treetable.group(
                "valid", [treetable.leaf("loss", ".3f"), treetable.leaf("best", ".3f")]
            ),
            treetable.group(
                "test",
                [
                    treetable.leaf("segment_top1", ".1%"),
                    treetable.leaf("segment_top10", ".1%"),
                    treetable.leaf("chance_top10", ".1%"),
                    treetable.leaf("wer", ".1%"),
                ],
            ),
        ]

    def process_sheep(self, sheep: Sheep, history: History) -> Row:
        """One line of the table: the latest values of an experiment."""
        return summarise(history, sheep.xp.cfg.optim.epochs)


def summarise(history: History, n_epochs: int) -> Row:
    """Latest losses, the best validation loss and the last test of an experiment."""
    row: Row = {"train": {"epoch": f"{len(history)}/{n_epochs}"}, "valid": {}, "test": {}}
    for metrics in history:
        for stage in row:
            row[stage].update(metrics.get(stage, {}))
    losses = [metrics["valid"]["loss"] for metrics in history if "valid" in metrics]
    if losses:
        row["valid"]["best"] = min(losses)
    return row
