"""Turn a checkpoint of the published code into one of ours.

Enters: what `read_published` gives. Leaves: the state that `bm.checkpoint.write_checkpoint` writes:
weights, scalers, configuration, history. The published file names neither recordings nor subjects
nor sensors, so these come from the data that it is loaded on.
"""

import inspect
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bm import __version__
from bm.build_models import build_models
from bm.config import Config, check, default_leaves, flatten, from_dict, to_dict
from bm.core.messages import DataError
from bm.published.reader import StandIn, read_published
from bm.scaling import BatchScaler
from bm.studies import registry

logger = logging.getLogger(__name__)

KEYS = ("history", "xp.cfg", "xp.sig", "all_models", "best_state", "scaler")
MODELS = {"0": "meg", "1": "features"}
"""Number of a model in the published state, and its name in ours."""
NOT_OURS = ("dora", "hydra")
MACHINE = ("cache", "features_models", "device", "num_workers", "num_prints", "verbose", "wandb")
"""Keys that depend on the machine rather than the experiment: ours keep their default."""
CENTRES, SCALES = ("center_", "mean_"), ("scale_", "std_")
NUMBER = re.compile(r"\d+(\.\d*)?e[+-]?\d+")
"""A number that YAML takes for a text, such as 3e-4."""

State = dict[str, Any]
Pair = tuple[Tensor, Tensor]


def import_published(path: Path, overrides: Mapping[str, Any] | None = None) -> State:
    """State of a published checkpoint as ours.

    Parameters
    ----------
    path : of the published file.
    overrides : nested values that take the place of those in its configuration, such as where
        studies are.

    Raises
    ------
    DataError : the file can't be read, names code, or doesn't fit the models that we build from
        its configuration.
    """
    content = read_published(path)
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise DataError(
            f"{path} has no {', '.join(missing)}: it isn't a checkpoint of the published code."
        )
    config = _config(content["xp.cfg"], overrides or {})
    weights, best = _weights(content["all_models"]), _weights(content["best_state"])
    names, pickled = config.dset.features, content["scaler"]
    if not isinstance(pickled, StandIn):
        raise DataError(f"{path}: the scaler is {type(pickled).__name__}, not an object.")
    features = _features(pickled, names, _n_features(weights))
    scaler = _scaler(pickled, features, config)
    _check_models(config, weights, scaler.centre.shape[1])
    history = _history(content["history"])
    best_epoch, best_loss = _best(history)
    for key in ("optimizer", "loss"):
        if content.get(key):
            logger.info("The state of the %s isn't taken over: it isn't needed to predict.", key)
    return {
        "models": weights,
        "best_state": best,
        "optimizer": None,
        "scaler": scaler.state_dict(),
        "history": history,
        "best_loss": best_loss,
        "best_epoch": best_epoch,
        "tested_epoch": best_epoch if any("test" in epoch for epoch in history) else -1,
        "layouts": None,
        "subjects": None,
        "recordings": None,
        "config": to_dict(config),
        "provenance": _provenance(config, str(content["xp.sig"])),
        "features": [
            {"name": name, "dimension": len(centre)}
            for name, (centre, _) in zip(names, features, strict=True)
        ],
        "sensors": None,
        "versions": {name: version(name) for name in ("torch", "numpy")} | {"bm": __version__},
        "commit": None,
    }


def plain_config(value: Any) -> Any:
    """Nested dictionaries, lists and values of what was pickled of an OmegaConf configuration.

    Raises
    ------
    DataError : a value is missing, or refers to another.
    """
    if not isinstance(value, StandIn):
        return value
    if "_val" in value.state:  # a leaf
        return _leaf(value.state["_val"])
    content = value.state.get("_content")
    if isinstance(content, dict):
        return {key: plain_config(item) for key, item in content.items()}
    if isinstance(content, list):
        return [plain_config(item) for item in content]
    return _leaf(content)


def _leaf(value: Any) -> Any:
    if isinstance(value, str):
        if "${" in value or value == "???":
            raise DataError(
                f"its configuration has the value {value!r}, which refers to something that the "
                "file doesn't hold."
            )
        return float(value) if NUMBER.fullmatch(value) else value
    return value


def _config(pickled: Any, overrides: Mapping[str, Any]) -> Config:
    values = plain_config(pickled)
    if not isinstance(values, dict):
        raise DataError("xp.cfg isn't a configuration.")
    values = {key: item for key, item in values.items() if key not in (*NOT_OURS, *MACHINE)}
    config = from_dict(_merge(_as_published(values), overrides))
    check(config)
    return config


def _as_published(values: State) -> State:
    """The chosen selections read as the published code read them: scalers and weights expect it."""
    selections = dict(values.get("selections", {}))
    for name in values.get("dset", {}).get("selections", []):
        study = registry.get(selections.get(name, {}).get("study"))
        if study is not None and "faithful" in inspect.signature(study).parameters:
            selections[name] = {**selections[name], "faithful": True}
    return {**values, "selections": selections}


def _merge(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> State:
    merged = dict(values)
    for key, value in overrides.items():
        old = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _weights(state: Any) -> dict[str, Tensor]:
    """The published names begin with the model's number, ours with its name."""
    weights = {}
    for key, tensor in state.items():
        number, _, name = str(key).partition(".")
        if number not in MODELS or not isinstance(tensor, Tensor):
            raise DataError(f"unexpected weight {key!r}: names begin with 0. or 1.")
        weights[f"{MODELS[number]}.{name}"] = tensor
    return weights


def _n_features(weights: Mapping[str, Tensor]) -> int:
    """Size F of the stimulus features, from the layer that meets them."""
    if "features.sequence.0.0.weight" in weights:
        return weights["features.sequence.0.0.weight"].shape[1]
    for name in ("meg.final.2.weight", "meg.final.weight"):  # transposed: [in, out, 1]
        if name in weights:
            return weights[name].shape[1]
    last = max(
        (
            name
            for name in weights
            if re.fullmatch(r"meg\.encoders\.meg\.sequence\.\d+\.0\.weight", name)
        ),
        key=lambda name: int(name.split(".")[4]),
    )
    return weights[last].shape[0]


def _n_subjects(weights: Mapping[str, Tensor]) -> int:
    """Subjects that the model has room for; 1 if it knows none."""
    name = "meg.subject_layers.weights"
    return len(weights[name]) if name in weights else 1


def _check_models(config: Config, weights: dict[str, Tensor], n_sensors: int) -> None:
    """Build the models of the configuration, and see whether the weights fit them."""
    room = replace(config, override_n_subjects_model=None)
    models = build_models(room, n_sensors, _n_features(weights), _n_subjects(weights))
    try:
        models.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"The weights don't fit the configuration: {error}") from error


def _scaler(pickled: StandIn, features: Sequence[Pair], config: Config) -> BatchScaler:
    """Our scaler with the published statistics."""
    norm = config.norm
    scaler = BatchScaler(
        norm.max_scale,
        norm.clip,
        norm.scaler.per_channel,
        norm.scaler.n_samples_per_recording,
        norm.scaler.n_samples_features,
        norm.exclude_empty_features,
    )
    of_recordings = {
        int(index): _statistics(one, f"the scaler of recording {index}")
        for index, one in pickled.state["meg_scalers"].items()
    }
    if not of_recordings:
        raise DataError("the scaler knows no recording.")
    n_sensors = max(len(centre) for centre, _ in of_recordings.values())
    scaler.centre = torch.zeros(max(of_recordings) + 1, n_sensors)
    scaler.scale = torch.ones(max(of_recordings) + 1, n_sensors)
    for index, (centre, scale) in of_recordings.items():
        scaler.centre[index, : len(centre)], scaler.scale[index, : len(scale)] = centre, scale
    scaler.feature_centre = torch.cat([centre for centre, _ in features])
    scaler.feature_scale = torch.cat([scale for _, scale in features])
    return scaler


def _features(pickled: StandIn, names: Sequence[str], n_features: int) -> list[Pair]:
    """Centre and scale of the columns of each feature; one without any isn't scaled."""
    of_features = pickled.state["feature_scalers"]
    pairs = [
        (torch.zeros(1), torch.ones(1))
        if of_features.get(name) is None
        else _statistics(of_features[name], f"the scaler of {name}")
        for name in names
    ]
    if len(pairs) == 1 and len(pairs[0][0]) == 1:  # one statistic for all columns, as published
        pairs = [(pairs[0][0].repeat(n_features), pairs[0][1].repeat(n_features))]
    n_columns = sum(len(centre) for centre, _ in pairs)
    if n_columns != n_features:
        raise DataError(
            f"the scalers of {', '.join(names)} have {n_columns} columns, but the model expects "
            f"{n_features}."
        )
    return pairs


def _statistics(pickled: Any, what: str) -> Pair:
    """Centre and scale [n] that a pickled scaler holds."""
    state = pickled.state if isinstance(pickled, StandIn) else {}
    found = [[state[name] for name in names if name in state] for names in (CENTRES, SCALES)]
    if not all(found):
        raise DataError(f"{what} should have center_ and scale_; it has {sorted(state)}.")
    centre, scale = (torch.as_tensor(values[0]).float().flatten() for values in found)
    if len(centre) != len(scale) or not (centre.isfinite().all() and (scale > 0).all()):
        raise DataError(f"{what} isn't usable: {len(centre)} centres, {len(scale)} scales.")
    return centre, scale


def _history(pickled: Any) -> list[dict[str, dict[str, float]]]:
    """Numbers of each epoch and split."""
    return [
        {
            str(split): {
                str(name): float(value)
                for name, value in metrics.items()
                if isinstance(value, int | float | Tensor) and math.isfinite(value)
            }
            for split, metrics in epoch.items()
        }
        for epoch in pickled
    ]


def _best(history: Sequence[Mapping[str, Mapping[str, float]]]) -> tuple[int, float]:
    """Epoch (from 0) of the lowest validation loss, and that loss; (-1, inf) if unknown."""
    losses = [epoch.get("valid", {}).get("loss", math.inf) for epoch in history]
    best = min(range(len(losses)), key=losses.__getitem__, default=-1)
    return (best, losses[best]) if losses and losses[best] < math.inf else (-1, math.inf)


def _provenance(config: Config, signature: str) -> list[list[Any]]:
    """What differs from the defaults, as `bm.config.provenance` gives it."""
    source, defaults = f"published checkpoint {signature}", default_leaves()
    leaves = flatten(to_dict(config))
    absent = object()
    return [
        [key, value, source]
        for key, value in leaves.items()
        if defaults.get(key, absent) != value and not key.startswith("study_paths")
    ]
