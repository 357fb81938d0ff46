"""Look at this machine and say what would keep bm from working, and what to do about it.

Usage: python -m scripts.doctor [KEY=VALUE ...]

  KEY=VALUE       any key of the configuration, as for `dora run`: what you are about to run
  verify=true     compare the checksums of the whole cache, not of 2 GB of it

Looks at Python and the packages, the device, memory, disk, the studies that are selected and the
logins they need, the cache, pretrained models, and SLURM. Nothing is downloaded or changed. Colours
only on a terminal; NO_COLOR=1 turns them off.

For example:
  python -m scripts.doctor preset=demo
  python -m scripts.doctor device=cuda selections.bids.root=/data/mine 'dset.selections=[bids]'

Exit code: 0 if nothing is wrong (there may be warnings), 1 if something is, 2 for a wrong argument.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import torch
from dora import to_absolute_path
from packaging.requirements import Requirement

from bm.build import build_features, build_selections
from bm.config import Config, from_hydra
from bm.core.cache import MANIFEST, find_fault
from bm.core.machine import available_memory, bf16_unit, n_cores
from bm.core.messages import DataError
from bm.features.speech import PretrainedSpeech
from bm.features.weights import find_local
from bm.studies.downloads.credentials import find_login, find_token
from bm.studies.downloads.studies import PLANS
from bm.train import main as experiment
from scripts.command import command
from scripts.options import divide
from scripts.terminal import Finding

GB = 1e9
LITTLE_MEMORY, LITTLE_DISK, NO_DISK = 4 * GB, 20 * GB, 0.1 * GB
VERIFIED = 2 * GB
"""Of the cache, whose checksums are compared unless all are asked for."""
SIMULATED = ("synthetic", "fake")
DONDERS = "https://webdav.data.ru.nl"


@dataclass(frozen=True)
class Options:
    """What the command line asks for, beside the configuration."""

    verify: bool = False


@command(__doc__, logging.ERROR, needs_arguments=False)
def main(arguments: Sequence[str]) -> int:
    """Print what was found; returns the exit code."""
    values, overrides = divide(Options, arguments)
    config = from_hydra(experiment.get_xp(overrides).cfg)
    n_failed = 0
    for finding in examine(config, overrides, **values):
        print(finding)
        n_failed += finding.state == "fail"
    print(f"{n_failed} thing(s) to mend." if n_failed else "Nothing to mend.")
    return int(n_failed > 0)


def examine(config: Config, told: Sequence[str], verify: bool = False) -> Iterator[Finding]:
    """All findings, one after the other.

    Parameters
    ----------
    config : what is to be run.
    told : arguments of the command line: what somebody asked for is missed more than a default.
    verify : compare all checksums of the cache.
    """
    looks: list[Callable[[], Iterator[Finding]]] = [
        find_packages,
        lambda: find_device(config.device, any(one.startswith("device=") for one in told)),
        find_memory,
        lambda: find_disk(Path(to_absolute_path(config.cache)), "cache"),
        lambda: find_disk(Path(to_absolute_path(experiment.dora.dir)), "results"),
        lambda: find_studies(config, told),
        lambda: find_cache(Path(to_absolute_path(config.cache)), verify),
        lambda: find_models(config),
        find_slurm,
    ]
    for look in looks:
        yield from look()


def find_packages() -> Iterator[Finding]:
    """Python, and every package that bm needs in a version that it works with."""
    python = ".".join(map(str, sys.version_info[:3]))
    is_new = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if is_new else "fail", python, "" if is_new else "3.11 or later")
    wrong = []
    for requirement in map(Requirement, requires("bm") or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "missing"
        if found == "missing" or not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} (needs {requirement.specifier})")
    if wrong:
        yield Finding("packages", "fail", "; ".join(wrong), "make install")
    else:
        yield Finding("packages", "ok", f"torch {torch.__version__}, mne {version('mne')}")


def find_device(device: str, is_told: bool) -> Iterator[Finding]:
    """Whether the device can compute."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        yield Finding(
            "device", "fail" if is_told else "warn",
            f"device={device}, but torch {torch.__version__} finds no GPU: the CPU would be used",
            "device=cpu, or a driver (nvidia-smi must answer) and a torch built for CUDA",
        )  # fmt: skip
        return
    try:
        torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        yield Finding("device", "fail", f"device={device}: {reason}", "device=cpu, cuda or mps")
        return
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    unit = bf16_unit(device)
    half = f"bf16 by {unit}" if unit else "nothing that multiplies bf16"
    yield Finding("device", "ok", f"{name}, {n_cores()} core(s), {half}")


def find_memory() -> Iterator[Finding]:
    """Memory that can still be taken."""
    free = available_memory()
    if free < LITTLE_MEMORY:
        remedy = "dset.residency=disk, a smaller optim.batch_size, or optim.micro_batch"
        yield Finding("memory", "warn", f"{free / GB:.1f} GB free", remedy)
    else:
        yield Finding("memory", "ok", f"{free / GB:.1f} GB free")


def find_disk(folder: Path, key: str) -> Iterator[Finding]:
    """Whether a folder can be written to, and how much room there is."""
    existing = next(one for one in (folder, *folder.parents) if one.is_dir())
    choice = "cache=FOLDER" if key == "cache" else "dora.dir=FOLDER"
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x" * 65536)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        text = f"{folder} can't be written to: {error.strerror or error}"
        yield Finding(f"disk {key}", "fail", text, f"free some space, or choose {choice}")
        return
    free = shutil.disk_usage(existing).free
    state = "ok" if free > LITTLE_DISK else "warn" if free > NO_DISK else "fail"
    remedy = "" if state == "ok" else f"free some space, or choose {choice}"
    yield Finding(f"disk {key}", state, f"{free / GB:.1f} GB free in {folder}", remedy)


def find_studies(config: Config, told: Sequence[str]) -> Iterator[Finding]:
    """Whether the selected studies are where they should be, or can be fetched."""
    try:
        selections = build_selections(config)
    except ValueError as error:
        yield Finding("study", "fail", str(error))
        return
    for selection in selections:
        study = str(selection["study"])
        if study in SIMULATED:
            has_voice = find_spec("espeakng_loader") is not None
            text = "simulated" if has_voice else "no voice to tell the story with"
            remedy = "" if has_voice else "pip install bm[demo]"
            yield Finding("study", "ok" if has_voice else "fail", f"{study}: {text}", remedy)
            continue
        place = selection.get("path") or selection.get("root")
        keys = (f"study_paths.default.{study}=", "selections.")
        is_told = any(argument.lstrip("+").startswith(keys) for argument in told)
        yield _find_study(study, Path(place) if place else None, is_told)
        if study in PLANS and not (place and Path(place).is_dir()):
            yield from find_login_of(study)


def _find_study(study: str, place: Path | None, is_told: bool) -> Finding:
    if place is None:
        return Finding("study", "fail", f"{study}: no folder", "selections.NAME.root=FOLDER")
    if place.is_dir() and any(place.iterdir()):
        return Finding("study", "ok", f"{study}: {place}")
    text = f"{study}: {place} {'is empty' if place.is_dir() else 'does not exist'}"
    if study in PLANS and not is_told:
        return Finding("study", "warn", text, f"python -m scripts.download {study}")
    return Finding("study", "fail", text, "correct the path; mind links and mounted disks")


def find_login_of(study: str) -> Iterator[Finding]:
    """Whether the login is there that a download needs."""
    try:
        if study == "broderick2019" and find_token("DRYAD_TOKEN") is None:
            yield Finding("login", "warn", "DRYAD_TOKEN isn't set", "docs/downloads.md, Logins")
        elif study == "schoffelen2019" and not find_login(
            "DONDERS_USER", "DONDERS_PASSWORD", DONDERS
        ):
            text = "neither DONDERS_USER and DONDERS_PASSWORD nor ~/.netrc"
            yield Finding("login", "warn", text, "docs/downloads.md, Logins")
        else:
            yield Finding("login", "ok", f"{study}: nothing is lacking")
    except DataError as error:
        yield Finding("login", "fail", str(error), "set it again")


def find_cache(folder: Path, verify: bool) -> Iterator[Finding]:
    """Whether the entries of the cache are as they were written."""
    entries = [file.parent for file in folder.glob(f"*/*/{MANIFEST}")]
    entries = [entry for entry in entries if ".corrupt-" not in entry.name]
    entries.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    faults, n_bytes, n_compared = [], 0, 0
    for entry in entries:
        compare = verify or n_bytes < VERIFIED
        n_compared += compare
        n_bytes += sum(file.stat().st_size for file in entry.iterdir())
        fault = find_fault(entry, compare)
        if fault:
            faults.append(f"{entry}: {fault}")
    for fault in faults:
        yield Finding("cache", "fail", fault, "delete that folder: it will be computed again")
    aside = list(folder.glob("*/*.corrupt-*"))
    if aside:
        text = f"{len(aside)} corrupt entries were set aside, such as {aside[0]}"
        yield Finding("cache", "warn", text, "look into the disk, then delete them")
    if not faults:
        compared = f"{len(entries)} entries, {n_bytes / GB:.2f} GB, checksums of {n_compared}"
        yield Finding("cache", "ok", f"{compared} compared")


def find_models(config: Config) -> Iterator[Finding]:
    """Whether the pretrained models of the features are on this machine."""
    try:
        features = build_features(config)
    except (ValueError, ImportError) as error:
        yield Finding("features", "fail", str(error))
        return
    for feature in features:
        if not isinstance(feature, PretrainedSpeech):
            yield Finding("features", "ok", f"{feature.name}")
            continue
        place = feature.model, feature.models_folder, feature.revision, not feature.random
        remedy = f"hf download {feature.model}, or copy it to {feature.models_folder}"
        try:
            folder = find_local(*place)
        except DataError as error:
            yield Finding("features", "fail", f"{feature.name}: {error}", remedy)
            continue
        if folder is not None:
            yield Finding("features", "ok", f"{feature.name}: {folder}")
        elif os.environ.get("HF_HUB_OFFLINE") == "1":
            text = f"{feature.name}: {feature.model} isn't here, and HF_HUB_OFFLINE=1"
            yield Finding("features", "fail", text, remedy)
        else:
            text = f"{feature.name}: {feature.model} isn't here: it would be downloaded"
            yield Finding("features", "warn", text, remedy)


def find_slurm() -> Iterator[Finding]:
    """Whether a cluster answers, if there is one."""
    if shutil.which("sinfo") is None:
        yield Finding("slurm", "ok", "none here, none needed (scripts.run_grid runs grids)")
        return
    try:
        done = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, timeout=20)
        answer = subprocess.run(["sinfo"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        yield Finding("slurm", "warn", "sinfo doesn't answer", "ask who runs the cluster")
        return
    if answer.returncode:
        reason = answer.stderr.strip().splitlines()[0] if answer.stderr.strip() else "no reason"
        yield Finding("slurm", "warn", f"sinfo: {reason}", "ask who runs the cluster")
    else:
        yield Finding("slurm", "ok", done.stdout.strip())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
