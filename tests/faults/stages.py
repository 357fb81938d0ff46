"""The parts of an experiment that the fault suite interrupts, each as a function of a folder.

Run as a program, it imports everything once and then forks a process for each line that asks for
one: hundreds of real processes can be started, and killed, in little time.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import mne
import numpy as np
import torch
from fixtures.bids import write_study
from small_speech_models import make_model

from bm import distrib
from bm.build import build_data, build_recordings, build_rules, build_solver
from bm.checkpoint import CHECKPOINT, read_checkpoint
from bm.config import Config, from_hydra
from bm.core.cache import find_fault
from bm.core.hashing import digest, file_checksum
from bm.segments.prepare import prepare
from bm.solver import Solver
from bm.studies.download import Connection
from bm.studies.download import download as download_study
from bm.train import main
from scripts.evaluate import evaluate_checkpoint

STUDY, MODEL, EXPERIMENT, TABLES, SERVER = "study", "model", "xp", "evaluation", "server.txt"
STEPS = "steps.txt"
DOWNLOADED = "gwilliams2022"
N_EPOCHS = 4
SETTINGS = [
    "dset.selections=[bids]",
    "dset.features=[MelSpectrum,SpeechEncoder]",
    "dset.features_params.MelSpectrum.n_mels=8",
    "+dset.features_params.SpeechEncoder.layers=[1]",
    "dset.sample_rate=60",
    "dset.on_bad_recording=error",
    "simpleconv.hidden.meg=32",
    "simpleconv.depth=2",
    "simpleconv.merger_channels=6",
    "simpleconv.merger_pos_dim=8",
    "simpleconv.initial_linear=6",
    "optim.batch_size=16",
    f"optim.epochs={N_EPOCHS}",
    "optim.max_batches=4",
    "early_stop_patience=100",
    "eval_every=100",
    "device=cpu",
]

Pieces = dict[str, Any]
"""What a stage has finished so far: name and digest of each piece."""


def compose(base: Path) -> Config:
    """Configuration of the experiment on the study in `base`."""
    model = f"+dset.features_params.SpeechEncoder.model={base / MODEL}"
    root = f"selections.bids.root={base / STUDY}"
    return from_hydra(main.get_xp([*SETTINGS, model, root]).cfg)


def configured(folder: Path, config: Config) -> Config:
    """The same with its cache in a folder."""
    return replace(config, cache=str(folder / "cache"))


def preprocessing(folder: Path, config: Config) -> None:
    """Fill the cache with signals and events."""
    config = configured(folder, config)
    signals, blocks = build_rules(config.dset)
    prepare(build_recordings(config), signals, blocks, "error")


def features(folder: Path, config: Config) -> None:
    """Fill it with features; signals are prepared before, if they aren't there."""
    build_data(configured(folder, config), "cpu")


class NotedSolver(Solver):
    """Notes each epoch that it begins."""

    def _run_epoch(self, epoch: int) -> None:
        assert self.folder is not None
        with open(self.folder.parent / STEPS, "a") as steps:
            steps.write(f"{epoch}\n")
        super()._run_epoch(epoch)


def checkpointing(folder: Path, config: Config) -> None:
    """Train, with a checkpoint after each epoch."""
    solver = build_solver(configured(folder, config), folder / EXPERIMENT)
    solver.__class__ = NotedSolver
    solver.run()


def distributed(folder: Path, config: Config) -> None:
    """Train as one of several processes, without an end."""
    distrib.PATIENCE = timedelta(seconds=int(os.environ["PATIENCE"]))
    distrib.start()
    endless = replace(config.optim, epochs=100_000)
    config = replace(configured(folder, config), optim=endless, early_stop_patience=100_000)
    with distrib.explaining():
        build_solver(config, folder / EXPERIMENT).run()


def evaluation(folder: Path, config: Config) -> None:
    """Evaluate the checkpoint: two tables and a report."""
    evaluate_checkpoint(folder / EXPERIMENT, folder / TABLES)


def download(folder: Path, config: Config) -> None:
    """Download a study from the server that the folder names."""
    url = (folder / SERVER).read_text()
    connection = Connection({"osf": f"{url}/v2"}, patience=0.05)
    download_study(DOWNLOADED, folder, verify=True, connection=connection)


STAGES: dict[str, Callable[[Path, Config], None]] = {
    "preprocessing": preprocessing,
    "feature extraction": features,
    "checkpointing": checkpointing,
    "evaluation": evaluation,
    "download": download,
}


def finished(stage: str, folder: Path) -> Pieces:
    """What is there of a stage's results; a piece that is there and broken says so."""
    if stage == "preprocessing":
        return {**_entries(folder, "signals"), **_entries(folder, "events")}
    if stage == "feature extraction":
        return _entries(folder, "features")
    if stage == "evaluation":
        return _files(folder / TABLES)
    if stage == "download":
        return _files(folder / "download")
    path = folder / EXPERIMENT / CHECKPOINT
    if not path.exists():
        return {}
    state = read_checkpoint(path)
    pieces = {f"epoch {n}": digest(metrics) for n, metrics in enumerate(state["history"])}
    if len(pieces) == N_EPOCHS:
        wanted = ("models", "best_state", "optimizer", "scaler", "history")
        pieces["state"] = digest(_plain({name: state[name] for name in wanted}))
    return pieces


def kept_since(stage: str, folder: Path) -> Pieces:
    """When each finished piece was written: shows if it was made again."""
    if stage == "checkpointing":
        return {}  # one file; the steps of the restart tell instead
    places = {
        "preprocessing": [*_found(folder, "signals"), *_found(folder, "events")],
        "feature extraction": _found(folder, "features"),
        "download": [path for path in (folder / "download").rglob("*") if _is_whole(path)],
    }.get(stage, [])
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in places}


def _found(folder: Path, kind: str) -> list[Path]:
    return sorted((folder / "cache" / kind).glob("[!.]*/entry.json"))


def _entries(folder: Path, kind: str) -> Pieces:
    pieces = {}
    for path in _found(folder, kind):
        if ".corrupt-" in path.parent.name:
            continue
        fault = find_fault(path.parent)
        files = [one for one in sorted(path.parent.iterdir()) if one != path]
        pieces[path.parent.name] = fault or digest(
            [[one.name, file_checksum(one)] for one in files]
        )
    return pieces


def _is_whole(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts[-3:])
    return path.is_file() and not hidden and not path.suffix.startswith(".part")


def _files(folder: Path) -> Pieces:
    found = sorted(path for path in folder.rglob("*") if _is_whole(path))
    return {str(path.relative_to(folder)): file_checksum(path) for path in found}


def _plain(value: Any) -> Any:
    """Tensors as digests, so that JSON can express it."""
    if isinstance(value, torch.Tensor):
        data = np.ascontiguousarray(value.detach().cpu().numpy())
        return [str(data.dtype), list(data.shape), digest(data.tobytes().hex())]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def serve(base: Path) -> None:
    """Write the study, then read commands and answer each with a line: a number.

    Answers are a process id, or an exit code.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries say isn't an answer
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    mne.set_log_level("ERROR")
    write_study(base / STUDY)
    make_model(base / MODEL, "wav2vec2-base")  # what this imports, the processes needn't
    config = compose(base)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        if command == "start":
            answer = _start(*arguments, config)
        else:
            _, status = os.waitpid(arguments[0], 0)
            answer = os.waitstatus_to_exitcode(status)
        answers.write(f"{answer}\n")
        answers.flush()


def _start(stage: str, folder: str, env: dict[str, str], config: Config) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.environ.update(env)
    log = os.open(
        Path(folder) / f"log{env.get('RANK', '')}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND
    )
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        {**STAGES, "distributed": distributed}[stage](Path(folder), config)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
