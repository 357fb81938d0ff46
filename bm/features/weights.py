"""Pretrained models of the Hugging Face hub: where their files are, and what tells them apart.

Enters: the name of a model. Leaves: a local folder with its files, downloaded as a last resort.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from bm.core.hashing import digest, file_checksum
from bm.core.messages import DataError

logger = logging.getLogger(__name__)

CONFIG = "config.json"
SETTINGS = (CONFIG, "preprocessor_config.json", "processor_config.json")
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""In order of preference: safetensors load faster and can't hold code."""


def find_model(
    name: str, models_folder: str | Path, revision: str | None = None, with_weights: bool = True
) -> Path:
    """Folder with the files of a pretrained model.

    Looked for in this order: a folder of that name; one in `models_folder`, named with "--" in
    place of "/"; the cache of the hub; the hub itself, unless ``HF_HUB_OFFLINE=1``.

    Parameters
    ----------
    name : a folder, or the name of a model on the hub.
    models_folder : where models were copied to.
    revision : commit on the hub; None: the latest that is here, else the latest there.
    with_weights : False if its configuration is enough.

    Raises
    ------
    DataError : it is nowhere.
    """
    here = find_local(name, models_folder, revision, with_weights)
    if here is not None:
        return here
    logger.info("%s is not on this machine: asking the hub for it.", name)
    copied = _copied(name, models_folder)
    try:
        return _from_hub(name, revision, with_weights, local_files_only=False)
    except OSError as error:
        pinned = f" --revision {revision}" if revision else ""
        raise DataError(
            f"The model {name} is not on this machine, and can't be downloaded. On a machine with "
            f"internet run\n  hf download {name}{pinned} --local-dir {copied.name}\nand copy that "
            f"folder to {copied} (features_models=PATH for another place). Neither that folder nor "
            f"the cache of the hub (HF_HOME) has it, and the hub said: {error}"
        ) from error


def find_local(
    name: str, models_folder: str | Path, revision: str | None = None, with_weights: bool = True
) -> Path | None:
    """As `find_model`, but None where the model isn't on this machine: nobody is asked for it.

    Raises
    ------
    DataError : its folder lacks files, or `name` is a folder that doesn't exist.
    """
    for folder in (Path(name).expanduser(), _copied(name, models_folder)):
        if folder.is_dir():
            return _checked(folder, with_weights)
    if name.startswith((".", "/", "~")):
        raise DataError(f"The model folder {name} does not exist.")
    try:
        return _from_hub(name, revision, with_weights, local_files_only=True)
    except OSError:
        return None


def model_identity(folder: Path, with_weights: bool = True) -> str:
    """Name of what the files of a model hold, the same on every machine."""
    if folder.parent.name == "snapshots":  # the hub's cache: a commit never changes
        return f"{folder.parent.parent.name}@{folder.name}"
    names = [*SETTINGS, *(_weight_files(folder) if with_weights else ())]
    return digest([[n, file_checksum(folder / n)] for n in names if (folder / n).is_file()])


def _copied(name: str, models_folder: str | Path) -> Path:
    return Path(models_folder) / name.replace("/", "--")


def _checked(folder: Path, with_weights: bool) -> Path:
    wanted = {CONFIG: (CONFIG,), "the weights": WEIGHTS if with_weights else (CONFIG,)}
    for what, names in wanted.items():
        if not any((folder / name).is_file() for name in names):
            raise DataError(
                f"The model folder {folder} lacks {what} ({' or '.join(names)}). Copy all files of "
                "the model there again."
            )
    return folder


def _weight_files(folder: Path) -> Sequence[str]:
    """Names of the files with the weights that would be loaded."""
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        names = sorted(path.name for path in folder.glob(pattern))
        if names:
            return names
    return []


def _from_hub(name: str, revision: str | None, with_weights: bool, local_files_only: bool) -> Path:
    """Folder of a model in the cache of the hub, downloaded unless `local_files_only`.

    Raises
    ------
    OSError : not there.
    """
    # Takes a second to import, and most runs find their features in the cache.
    from transformers.utils.hub import cached_file, get_checkpoint_shard_files

    how = {"revision": revision, "local_files_only": local_files_only}
    config = cached_file(name, CONFIG, **how)
    if config is None:
        raise OSError(f"{name} has no {CONFIG}.")
    folder = Path(config).parent
    how["revision"] = folder.name  # the commit: all files from the same one
    for optional in SETTINGS[1:]:
        cached_file(name, optional, _raise_exceptions_for_missing_entries=False, **how)
    if with_weights:
        for file in WEIGHTS:
            found = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **how)
            if found is not None:
                break
        else:
            raise OSError(f"{name} has none of {', '.join(WEIGHTS)}.")
        if found.endswith(".index.json"):
            get_checkpoint_shard_files(name, found, **how)
    return folder
