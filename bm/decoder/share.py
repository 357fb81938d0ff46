"""A trained model to be shared: a folder that anyone can read, and that can't run any code.

Enters: the state of a checkpoint. Leaves: ``model.safetensors`` (weights, scales, sensors),
``config.json`` (all else) and ``README.md``, the model card; and back.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bm.checkpoint import CHECKPOINT, read_checkpoint
from bm.core.cache import write_atomically, write_json
from bm.core.messages import DataError

WEIGHTS, ABOUT, CARD = "model.safetensors", "config.json", "README.md"
FORMAT = "bm-decoder-1"
HUB = "hf://"
PLAIN = ("config", "subjects", "features", "versions", "commit", "best_epoch")
"""What of a checkpoint is told in ``config.json``."""
SCALES = ("feature_centre", "feature_scale")
NUMBERS = ("max_scale", "clip", "n_samples_per_recording")
MACHINE = {"study_paths": {}, "cache": "./cache", "features_models": "./features_models"}
"""Keys of the configuration that say where things are on the machine of training."""
PLACES = ("path", "root")
"""Keys of a selection that do."""


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint, or an exported folder, here or on the hub.

    Parameters
    ----------
    path : checkpoint file, folder of an experiment, exported folder, or ``hf://USER/NAME``.

    Raises
    ------
    ValueError : there is none, or it can't be read.
    """
    if str(path).startswith(HUB):
        return read_folder(_from_hub(str(path).removeprefix(HUB)))
    path = Path(path).expanduser()
    if (path / ABOUT).exists():
        return read_folder(path)
    if path.is_dir():
        path = path / CHECKPOINT
    if not path.exists():
        raise DataError(
            f"{path} does not exist. Give a checkpoint, the folder of an experiment, a folder "
            f"written by scripts.export, or {HUB}USER/NAME."
        )
    return read_checkpoint(path)


def export(state: Mapping[str, Any], folder: Path, card: str) -> None:
    """Write what decodes a recording, and nothing of the recordings that were trained on.

    Parameters
    ----------
    state : of a checkpoint.
    folder : where to write.
    card : text of the model card.
    """
    scaler = state["scaler"]
    montages = state.get("montages") or []
    tensors = {f"weights.{name}": value for name, value in state["best_state"].items()}
    tensors |= {f"scaler.{name}": scaler[name] for name in SCALES}
    tensors |= {f"montage.{k}": one["positions"] for k, one in enumerate(montages)}
    about = {
        "format": FORMAT,
        **{key: state[key] for key in PLAIN},
        "scaler": {name: scaler[name] for name in NUMBERS},
        "n_sensors": scaler["centre"].shape[1],
        "montages": [one["names"] for one in montages],
    }
    about["config"] = _without_places(about["config"])
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: value.contiguous().clone() for name, value in tensors.items()}
    write_atomically(folder / WEIGHTS, partial(save_file, contiguous))
    write_atomically(folder / CARD, lambda part: part.write_text(card, encoding="utf-8"))
    write_json(folder / ABOUT, about)


def read_folder(folder: Path) -> dict[str, Any]:
    """State of an exported folder, as `bm.decoder.Decoder` takes it.

    Raises
    ------
    DataError : a file is missing, damaged, or of another format.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{folder} can't be read as an exported model: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise DataError(f"{folder / ABOUT} isn't of a model that bm exported (format {FORMAT}).")
    scaler = {**about["scaler"], **{name: tensors[f"scaler.{name}"] for name in SCALES}}
    n_sensors = about["n_sensors"]
    return {
        **{key: about[key] for key in PLAIN},
        "scaler": {**scaler, "centre": torch.zeros(0, n_sensors)},
        "montages": [
            {"names": names, "positions": tensors[f"montage.{k}"]}
            for k, names in enumerate(about["montages"])
        ],
        "best_state": {
            name.removeprefix("weights."): value
            for name, value in tensors.items()
            if name.startswith("weights.")
        },
    }


def is_place(key: str) -> bool:
    """Whether a dotted key of the configuration says where something is on a machine."""
    parts = key.split(".")
    return parts[0] in MACHINE or parts[-1] in PLACES


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without what tells where things were on the machine of training."""
    selections = {
        name: {key: value for key, value in selection.items() if key not in PLACES}
        for name, selection in config["selections"].items()
    }
    used = config["dset"]["selections"]
    chosen = {name: selections[name] for name in used if name in selections}
    return {**config, **MACHINE, "selections": chosen}


def _from_hub(name: str) -> Path:
    """Folder with the files of an exported model on the hub; kept in the cache of the hub."""
    repo, _, revision = name.partition("@")
    files = [WEIGHTS, ABOUT, CARD]
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise DataError(
            f"{HUB}{name} can't be had from the hub, and isn't on this machine: {error}. Is the "
            "name right (hf://USER/NAME)? For a private model, log in first: hf auth login"
        ) from error
