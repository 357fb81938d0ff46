"""The experiments of a grid: arguments, signature and folder of each, without scheduling any.

Links below ``outputs/grids`` aren't needed: a dry run doesn't leave any.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import dora
from dora.conf import SlurmConfig
from dora.explore import Explorer, Herd, Launcher

from bm import grids
from bm.core.messages import did_you_mean
from bm.train import main as experiment
from scripts.options import UsageError


@dataclass(frozen=True)
class Grid:
    """A grid by its name, with what it schedules, each once and in its order.

    Attributes
    ----------
    name : below `bm.grids`, or that of a module elsewhere.
    explorer : schedules its experiments.
    experiments : these.
    rows : options of each row of its table (``ROWS`` and ``CONTROLS`` of the module), by name.
    """

    name: str
    explorer: Explorer
    experiments: list[dora.XP]
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def signatures(self) -> list[str]:
        """Signature of each experiment."""
        return [xp.sig for xp in self.experiments]


def find_grid(name: str) -> Grid:
    """Grid of this name, such as ``nmi.main_table``, or of a module that can be imported.

    Raises
    ------
    UsageError : there is no such grid.
    """
    module = importlib.import_module(_module_of(name))
    if not isinstance(getattr(module, "explorer", None), Explorer):
        raise UsageError(f"{name!r} is no grid: {module.__file__} has no explorer.")
    rows = {**getattr(module, "ROWS", {}), **getattr(module, "CONTROLS", {})}
    return Grid(name, module.explorer, experiments_of(module.explorer), rows)


def experiments_of(explorer: Explorer) -> list[dora.XP]:
    """What an explorer schedules, each once; nothing is scheduled."""
    herd = _Arguments()
    all_of_a_shepherd: Any = SimpleNamespace(main=experiment)
    explorer(Launcher(all_of_a_shepherd, SlurmConfig(), herd))
    found = [experiment.get_xp(argv) for argv in herd.argvs]
    return list({xp.sig: xp for xp in found}.values())


def _module_of(name: str) -> str:
    modules = pkgutil.walk_packages(grids.__path__, f"{grids.__name__}.")
    known = [
        module.name.removeprefix(f"{grids.__name__}.")
        for module in modules
        if not module.ispkg and not module.name.rsplit(".", 1)[-1].startswith("_")
    ]
    if name in known:
        return f"{grids.__name__}.{name}"
    try:
        is_elsewhere = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # its package doesn't exist, or it isn't a name
        is_elsewhere = False
    if not is_elsewhere:
        raise UsageError(f"There is no grid {name!r}. {did_you_mean(name, known)}")
    return name


class _Arguments(Herd):
    """Collects the arguments of scheduled experiments instead of scheduling them."""

    def __init__(self) -> None:
        super().__init__()
        self.argvs: list[list[str]] = []

    def add_sheep(
        self, shepherd: Any, argv: list[str], slurm: SlurmConfig, pool: Any = None
    ) -> None:
        """Take note of an experiment."""
        self.argvs.append(list(argv))
