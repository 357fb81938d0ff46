"""HiPlot pages of grids: ``hiplot dora.hiplot.load --port 6112``, then the name of a grid.

Type ``demo explorer=ClipHiPlot`` (or signatures) into the page. Each epoch is a line, by the names
that TensorBoard and Weights & Biases show too; ``last`` keeps the last epochs only.
"""

import hiplot
from dora import XP
from dora.hiplot import HiPlotExplorer

from bm.tracking import flat_metrics


class ClipHiPlot(HiPlotExplorer):
    """Accuracy against the epoch, and everything that differs between the experiments."""

    def process_metrics(self, xp: XP, metrics: dict[str, dict[str, float]]) -> dict[str, float]:
        """Metrics of an epoch by ``STAGE/METRIC``."""
        return flat_metrics(metrics)

    def postprocess_exp(self, exp: hiplot.Experiment) -> None:
        """Validation loss against the epoch, one curve for each experiment."""
        exp.display_data(hiplot.Displays.XY).update(
            {"axis_x": "epoch", "axis_y": "valid/loss", "lines_thickness": 2.0}
        )
