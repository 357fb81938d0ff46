"""Studies and features that aren't part of bm: importing their modules puts them into a registry.

Enters: names of modules or files. Leaves: nothing; `@register` does the rest.
"""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from bm.core.hashing import digest

logger = logging.getLogger(__name__)

GROUP = "bm.plugins"
"""Entry points of installed packages: each names a module."""
_loaded: set[str] = set()


def load_plugins(names: Sequence[str], folder: str | Path = ".") -> None:
    """Import plugins, each once: those of installed packages, then those that are named.

    Parameters
    ----------
    names : Python files (``my_study.py``), or modules that can be imported.
    folder : where relative paths begin.

    Raises
    ------
    ValueError : a plugin doesn't exist, or can't be imported.
    """
    for point in entry_points(group=GROUP):
        _import(point.value, f"the plugin {point.name} of an installed package ({point.value})")
    for name in names:
        if name.endswith(".py"):
            _import_file((Path(folder) / Path(name).expanduser()).absolute())
        else:
            _import(name, f"plugins: {name}")


def _import(name: str, what: str) -> None:
    if name in _loaded:
        return
    try:
        importlib.import_module(name)
    except Exception as error:  # it runs somebody's code
        raise ValueError(f"{what} can't be imported ({type(error).__name__}: {error}).") from error
    _loaded.add(name)
    logger.info("Plugin: %s.", name)


def _import_file(path: Path) -> None:
    name = f"bm_plugin_{path.stem}_{digest(str(path), length=8)}"
    if name in _loaded:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"plugins: there is no Python file {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that its objects can be sent to other processes
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # it runs somebody's code
        del sys.modules[name]
        raise ValueError(
            f"plugins: {path} can't be imported ({type(error).__name__}: {error})."
        ) from error
    _loaded.add(name)
    logger.info("Plugin: %s.", path)
