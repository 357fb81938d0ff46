"""Notebooks as users run them: other parameters, the same cells, a real kernel."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebook_templates").glob("*.py"))
GRIDS = ("grid", "mel_grid", "rate_grid", "word_grid", "subject_grids")
"""Parameters that name grids; the last one names several."""


@contextmanager
def running_kernel(env: dict[str, str]) -> Iterator[KernelManager]:
    """One kernel for several notebooks, since its imports take long."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    manager = KernelManager(kernel_name="python3", transport="ipc")
    manager.start_kernel(env={**env, "PYTHONPATH": paths})
    yield manager
    manager.shutdown_kernel(now=True)


def parameters_of(notebook: NotebookNode) -> list[str]:
    """Names that the cell of parameters sets."""
    return [line.split(" = ")[0] for line in _parameters(notebook).source.splitlines()]


def read(name: str) -> NotebookNode:
    """A notebook as it is in the repository."""
    return nbformat.read(ROOT / "notebook_templates" / f"{name}.ipynb", as_version=4)


def execute(kernel: KernelManager, name: str, **parameters: Any) -> NotebookNode:
    """Execute a notebook with other parameters; returns it with its outputs."""
    notebook = read(name)
    assert set(parameters) <= set(parameters_of(notebook))
    cell = _parameters(notebook)
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client = NotebookClient(notebook, km=kernel, timeout=300)
    client.execute()
    client.kc.stop_channels()
    return notebook


def execute_on(kernel: KernelManager, name: str, grid: str, root: Path) -> NotebookNode:
    """Execute a notebook on one grid, whatever grids it asks for."""
    named = {key: [grid] if key == GRIDS[-1] else grid for key in GRIDS}
    known = parameters_of(read(name))
    return execute(kernel, name, root=str(root), **{k: named[k] for k in named if k in known})


def outputs(notebook: NotebookNode, kind: str) -> list[str]:
    """Outputs of a kind, such as ``text/plain``, in their order."""
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return [one[kind] for one in data if kind in one]


def _parameters(notebook: NotebookNode) -> NotebookNode:
    (cell,) = [one for one in notebook.cells if "parameters" in one.metadata.get("tags", [])]
    return cell
