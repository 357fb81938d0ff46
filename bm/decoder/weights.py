"""Models of a checkpoint, with room for one more subject."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bm.build import build_features
from bm.build_models import build_contrastive, build_models, columns_of
from bm.config import Config
from bm.features import EventFeature, Feature

SUBJECT_LAYER = "meg.subject_layers.weights"


def build_with_newcomer(config: Config, state: Mapping[str, Any]) -> nn.ModuleDict:
    """Models with the best weights; the last subject is a newcomer, the mean of the learned ones.

    Raises
    ------
    ValueError : the weights don't fit the configuration.
    """
    n_learned, n_room = _count_learned(state), count_room(config, state)
    roomy = replace(config, override_n_subjects_model=n_room + 1)
    n_sensors = state["scaler"]["centre"].shape[1]
    n_features = len(state["scaler"]["feature_centre"])
    models = build_models(roomy, n_sensors, n_features, n_learned, _with_models(config, state))
    if config.optim.loss == "clip":
        models["loss"] = build_contrastive(config, count_outputs(config, state))
    weights = dict(state["best_state"])
    for name, here in models.state_dict().items():
        known = weights.get(name)
        if known is not None and known.ndim and (len(known), len(here)) == (n_room, n_room + 1):
            weights[name] = torch.cat([known, known[:n_learned].mean(dim=0, keepdim=True)])
    try:
        models.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"The weights don't fit the configuration: {error}") from error
    return models


def count_room(config: Config, state: Mapping[str, Any]) -> int:
    """Subjects that the model was built for: the index of the newcomer."""
    return config.override_n_subjects_model or _count_learned(state)


def count_outputs(config: Config, state: Mapping[str, Any]) -> int:
    """Features F that the model estimates."""
    if config.feature_model_name == "deep_mel":
        return int(config.feature_model_params["n_out_channels"])
    features = _with_models(config, state)
    if features:
        return sum(one.n for one in columns_of(config, features))
    return len(state["scaler"]["feature_centre"])


def _count_learned(state: Mapping[str, Any]) -> int:
    """Subjects that were trained on; an imported checkpoint tells by its weights alone."""
    if state["subjects"] is not None:
        return len(state["subjects"])
    return len(state["best_state"][SUBJECT_LAYER]) if SUBJECT_LAYER in state["best_state"] else 1


def _with_models(config: Config, state: Mapping[str, Any]) -> list[Feature]:
    """Features, where a model stands between their tables and the target; else none are needed."""
    tells_classes = config.optim.loss == "regression_classification"
    if not tells_classes and "Wav2VecChunk" not in config.dset.features:
        return []
    features = build_features(config)
    for feature, about in zip(features, state["features"], strict=True):
        if isinstance(feature, EventFeature):
            feature.dimension = about["dimension"]  # else known once a table is built
    return features
