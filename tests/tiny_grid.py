"""A grid outside of bm: two rows with two seeds."""

from typing import Any

from dora import Launcher

from bm.grids._explorers import ClipExplorer
from bm.grids.demo import SMALL

SEEDS = (2036, 2037)
ROWS: dict[str, dict[str, Any]] = {
    "reference": {},
    "no subject layer": {"simpleconv.subject_layers": False},
}


@ClipExplorer
def explorer(launcher: Launcher) -> None:
    """Schedule all experiments."""
    launcher.bind_({**SMALL, "optim.epochs": 2})
    for seed in SEEDS:
        for row in ROWS.values():
            launcher({"seed": seed}, row)
