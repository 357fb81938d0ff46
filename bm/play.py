"""Entry point of notebooks and scripts: trained experiments by signature or checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from dora import XP
from omegaconf import OmegaConf

from bm.build import build_solver
from bm.calibration import Calibration, calibrate, welcome
from bm.checkpoint import CHECKPOINT, read_checkpoint
from bm.config import from_dict, from_hydra
from bm.decoder import Decoder, load_state
from bm.solver import Solver
from bm.train import main


def load(path: str | Path, device: str | None = None) -> Decoder:
    """Trained model on its own, for recordings that it has never met: see `bm.decoder.Decoder`.

    Parameters
    ----------
    path : checkpoint file, the folder of an experiment, a folder written by ``scripts.export``, or
        such a folder on the Hugging Face hub: ``hf://USER/NAME``.
    device : where to compute; None: as the model was configured.

    Raises
    ------
    ValueError : there is no model, or it can't be read.
    """
    return Decoder(load_state(path), device)


def get_solver_from_sig(sig: str) -> Solver:
    """Solver of an experiment that was run, with its trained weights.

    Parameters
    ----------
    sig : signature that `dora run` or `dora info` prints.

    Raises
    ------
    ValueError : no experiment of that signature, or it has no checkpoint yet.
    """
    try:
        xp = main.get_xp_from_sig(sig)
    except RuntimeError as error:
        folder = main.dora.dir / main.dora.xps
        known = sorted(path.name for path in folder.glob("*")) if folder.exists() else []
        raise ValueError(
            f"No experiment {sig!r} in {folder}. Known: {', '.join(known) or '(none)'}."
        ) from error
    return get_solver_from_xp(xp)


def get_solver_from_args(argv: Sequence[str]) -> Solver:
    """Solver of the experiment that ``dora run`` would give with these arguments."""
    return get_solver_from_xp(main.get_xp(list(argv)))


def get_solver_from_xp(xp: XP) -> Solver:
    """Solver of a Dora experiment, with its trained weights."""
    solver = build_solver(from_hydra(xp.cfg), Path(xp.folder).absolute())
    if not solver.restore():
        raise ValueError(
            f"Experiment {xp.sig} has no {CHECKPOINT} in {xp.folder}: has it run for an epoch? "
            f"Start it with: dora run -f {xp.sig}"
        )
    return solver


def get_solver_from_checkpoint(path: str | Path) -> Solver:
    """Solver with the weights and the configuration of a checkpoint file.

    Raises
    ------
    ValueError : the file can't be read, or its data aren't here.
    """
    path = Path(path).absolute()
    path = path / CHECKPOINT if path.is_dir() else path
    solver = build_solver(from_dict(read_checkpoint(path)["config"]), path.parent)
    solver.restore(path)
    return solver


def get_calibrated_solver(
    path: str | Path,
    recordings: Sequence[str],
    minutes: float | None = None,
    settings: Calibration | None = None,
) -> Solver:
    """Solver of new subjects: the model of a checkpoint, its layers per subject fitted to them.

    Only these layers are fitted, on training segments of the new recordings; their test segments
    tell how well it went (`Solver.retrieve`).

    Parameters
    ----------
    path : checkpoint file, or the folder that holds one.
    recordings : which the new ones are: ``key=value`` as for ``dora run``, on top of the
        checkpoint's configuration, such as ``dset.selections=[mine]``.
    minutes : use the first so many minutes of each recording only; None: all.
    settings : how to fit.

    Raises
    ------
    ValueError : the checkpoint can't be read or doesn't fit, or the model has nothing of its own
        for each subject.
    """
    path = Path(path).absolute()
    state = read_checkpoint(path / CHECKPOINT if path.is_dir() else path)
    merged = OmegaConf.merge(state["config"], OmegaConf.from_dotlist(list(recordings)))
    values = OmegaConf.to_container(merged)
    assert isinstance(values, dict)
    solver = build_solver(from_dict(values))
    welcome(solver, state, minutes)
    calibrate(solver, settings)
    return solver
