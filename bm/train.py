"""Entry point of `dora run`: one experiment from its configuration to its test accuracy."""

import logging
import os
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dora
import torch
from dora.conf import SlurmConfig, update_from_hydra
from dora.distrib import DistribSpec, get_distrib_spec, set_distrib_env
from dora.hydra import HydraMain, _compare_config
from dora.shep import Sheep
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bm import distrib
from bm.budget import explaining_memory, log_budget
from bm.build import Provenance, build_solver
from bm.checkpoint import CHECKPOINT, DONE
from bm.config import (
    CONF,
    Config,
    ConfigError,
    explain_override,
    from_hydra,
    provenance,
    to_dict,
)
from bm.core.cache import Cache
from bm.core.machine import n_cores
from bm.core.messages import DataError
from bm.evaluation.audit import audit_splits, enforce
from bm.preparation import download_studies, prepare_recordings, summary
from bm.segments.prepare import list_aside
from bm.tracking import Publish, TensorBoard, WeightsAndBiases, publish_to

logger = logging.getLogger(__name__)

CLUSTER = "BM_SLURM"
"""Environment variable: file of conf/slurm, or path of one, with what to ask of SLURM."""
TRACEBACK = "traceback.txt"
"""File in the folder of an experiment that was stopped by what users can mend."""
WHERE = "(Traceback:"
"""Begins the last line that such an experiment prints; the message stands before it."""
REQUEUED = 600
"""Seconds that SLURM is given to take a job back."""

if not CONF.is_dir():
    raise FileNotFoundError(
        f"The configuration folder {CONF} is missing. It lies outside the package, beside it: "
        "install bm from its checkout in editable mode (make install, or pip install -e .)."
    )


class ArgumentError(ConfigError, SystemExit):
    """Arguments that the configuration has no place for.

    Dora's commands end with the message alone, since nothing there catches a SystemExit; for
    notebooks and scripts it is a ConfigError.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message


class ExperimentMain(HydraMain):
    """Dora's entry point, with errors that name the closest key of the configuration."""

    def __init__(self, run: Callable[[DictConfig], None], **options: str) -> None:
        self._bases: dict[tuple[str, ...], tuple[DictConfig, list[tuple[str, str]]]] = {}
        super().__init__(run, **options)

    def get_xp(self, argv: Sequence[str]) -> dora.XP:
        """Experiment of these arguments.

        Raises
        ------
        ArgumentError : an argument that the configuration has no place for.
        """
        try:
            return super().get_xp(argv)
        except (
            HydraException,
            OmegaConfBaseException,
            AssertionError,
            OSError,
            ValueError,
        ) as error:
            raise ArgumentError(explain_override(argv, str(error))) from error

    def _get_config_groups(self) -> list[str]:
        """Folders of the configuration; Hydra's way to list them takes as long as composing it."""
        return sorted(
            path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()
        )

    def _get_base_config(
        self, overrides: Sequence[str] = ()
    ) -> tuple[DictConfig, list[tuple[str, str]]]:
        """What the chosen files alone would give: composed once, however many experiments ask."""
        chosen = tuple(arg for arg in overrides if arg.split("=")[0] in self._config_groups)
        if chosen not in self._bases:
            self._bases[chosen] = super()._get_base_config(list(chosen))
        cfg, delta = self._bases[chosen]
        return cfg, list(delta)

    def _get_delta(self, init: DictConfig, other: DictConfig) -> list[tuple[str, object]]:
        """Keys that differ; Dora's own would begin where the last comparison that failed ended."""
        differences = _compare_config(init, other, [])
        return [(".".join(one.path), one.other_value) for one in differences]

    def get_slurm_config(self) -> SlurmConfig:
        """What `dora grid` and `dora launch` ask of SLURM, before their flags.

        Raises
        ------
        ConfigError : there is no such file, or it has a key that Dora doesn't know.
        """
        slurm = super().get_slurm_config()
        name = os.environ.get(CLUSTER, "default")
        path = Path(name) if name.endswith(".yaml") else CONF / "slurm" / f"{name}.yaml"
        if not path.exists():
            known = ", ".join(sorted(one.stem for one in (CONF / "slurm").glob("*.yaml")))
            raise ConfigError(f"{CLUSTER}={name}: there is no {path}. Known: {known}.")
        values = OmegaConf.load(path)
        if not isinstance(values, DictConfig):
            raise ConfigError(f"{path} should hold keys and values.")
        try:
            update_from_hydra(slurm, values)
        except AttributeError as error:
            raise ConfigError(f"{path}: {error}") from error
        return slurm


def experiment(run: Callable[[DictConfig], None]) -> ExperimentMain:
    """Make a function the entry point of `dora run`."""
    return ExperimentMain(run, config_name="config", config_path="../conf", version_base="1.3")


@experiment
def main(cfg: DictConfig) -> None:
    """Train and test the experiment that Dora has opened, alone or as one of several processes."""
    folder = Path(dora.get_xp().folder)
    with politely(folder):
        config = from_hydra(cfg)
    spec = get_distrib_spec()
    share_cores(spec)
    if spec.world_size > 1:
        set_distrib_env()
        distrib.start()
    try:
        with politely(folder), distrib.explaining():
            run(config)
    finally:
        distrib.stop()


def share_cores(spec: DistribSpec) -> None:
    """Compute with as many threads as this process has cores, or with OMP_NUM_THREADS.

    More of them wait for each other: docs/cluster.md tells what that costs.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    n_threads = n_cores()
    if spec.source != "submitit":
        n_threads //= spec.world_size // spec.num_nodes
    elif "SLURM_CPUS_PER_TASK" in os.environ:
        n_threads = min(n_threads, int(os.environ["SLURM_CPUS_PER_TASK"]))
    torch.set_num_threads(max(1, n_threads))


@contextmanager
def politely(folder: Path) -> Iterator[None]:
    """Within this context, what users or their data got wrong is one message, without traceback.

    Parameters
    ----------
    folder : of the experiment; the traceback goes there.

    Raises
    ------
    SystemExit : with the message; the exit code is 1.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        place = folder / TRACEBACK
        try:
            folder.mkdir(parents=True, exist_ok=True)
            place.write_text(traceback.format_exc(), encoding="utf-8")
        except OSError:  # a full disk may be what stopped us
            logger.debug("Stopped by:", exc_info=True)
        hint = "If that doesn't help: python -m scripts.doctor, with the same arguments."
        raise SystemExit(f"{error}\n{WHERE} {place}. {hint})") from error


def run(config: Config) -> None:
    """What the configuration asks for: show it, fill the cache, or train and test."""
    origin = log_configuration(config)
    if config.show:
        return
    download_studies(config)
    if config.download_only:
        outcomes = prepare_recordings(config)
        logger.info("In %s: %s", config.cache, summary(outcomes))
        if all(outcome.reason for outcome in outcomes):
            raise DataError("No recording can be used: the reasons are listed above.")
        return
    xp = dora.get_xp()
    folder = Path(xp.folder).absolute()
    logger.info("Experiment %s in %s.", xp.sig, folder)
    if config.continue_sig is not None:
        wait_for(config.continue_sig)
    solver = build_solver(config, folder, make_publish(config, xp), origin)
    if config.audit != "off":
        cache = Cache(dora.to_absolute_path(config.cache))
        enforce(audit_splits(solver.splits, solver.scaler.fitted_on, cache), config.audit)
    log_budget(solver)
    with explaining_memory(solver):
        solver.run()
    splits = solver.splits
    if splits.set_aside:
        logger.warning("%s", list_aside(splits.set_aside, len(splits.prepared)))
    if distrib.is_main():
        (folder / DONE).touch()
    logger.info("%s", next_steps(config, xp.sig, folder))


def next_steps(config: Config, sig: str, folder: Path) -> str:
    """Where things are, and what to type next."""
    lines = [f"Experiment {sig} is done: {folder} ({CHECKPOINT}, history.json)."]
    if config.task.type == "decode":  # there is nothing to retrieve otherwise
        lines += [
            "Next:",
            f"  python -m scripts.run_eval_probs 'sigs=[{sig}]'             accuracies, report",
            f"  python -m scripts.controls sig={sig}                      can it be believed?",
            f"  python -m scripts.predict checkpoint={folder} raw=FILE    another recording",
        ]
    return "\n".join(lines)


def make_publish(config: Config, xp: dora.XP) -> Publish:
    """Where the history goes: ``history.json``, and what else the configuration asks for."""
    sinks: list[Publish] = [xp.link.update_history]
    if distrib.is_main():
        if config.tensorboard:
            sinks.append(TensorBoard(Path(xp.folder)))
        wandb = config.wandb
        if wandb.use_wandb:
            values = to_dict(config)
            sinks.append(
                WeightsAndBiases(Path(xp.folder), xp.sig, wandb.project, wandb.group, values)
            )
    return publish_to(sinks)


def wait_for(sig: str) -> None:
    """Go back into SLURM's queue while the experiment that this one starts from isn't done.

    Elsewhere, or if nothing is at work on it any more, its checkpoint is taken as it is.
    """
    parent = Sheep(dora.XP(dora=main.dora, cfg=None, argv=[], sig=sig))
    if (Path(parent.xp.folder) / DONE).exists():
        return
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or parent.is_done():
        logger.warning("Experiment %s, which this one starts from, isn't done.", sig)
        return
    logger.info("Experiment %s isn't done: back into the queue.", sig)
    if distrib.is_main():
        subprocess.run(["scontrol", "requeue", job], check=True)
    time.sleep(REQUEUED)  # SLURM ends the job meanwhile
    raise TimeoutError(f"Job {job} was to be requeued, and still runs after {REQUEUED} s.")


def log_configuration(config: Config) -> Provenance:
    """Log, and return, every value that differs from the defaults, and where it came from."""
    hydra_config = HydraConfig.get()
    level = logging.DEBUG if config.verbose else logging.INFO
    logging.getLogger("bm").setLevel(level if distrib.is_main() else logging.WARNING)
    entries = provenance(
        config, list(hydra_config.overrides.task), dict(hydra_config.runtime.choices)
    )
    width = max((len(key) for key, _, _ in entries), default=0)
    lines = [f"  {key:<{width}} = {value!r}  ({source})" for key, value, source in entries]
    logger.info("Configuration, other than the defaults:\n%s", "\n".join(lines))
    return entries
