"""From a configuration to models: the brain encoder and, if there is one, the feature model."""

import inspect

import torch
from torch import nn

from bm.config import Config
from bm.core.messages import check_choice
from bm.models import DeepMel, SimpleConv


def build_models(config: Config, n_sensors: int, n_features: int, n_subjects: int) -> nn.ModuleDict:
    """Brain encoder ("meg") and, if configured, a model of the features ("features")."""
    torch.manual_seed(config.seed)
    models = nn.ModuleDict()
    if config.feature_model_name == "deep_mel":
        models["features"] = _build_deep_mel(config, n_features)
        n_features = config.feature_model_params["n_out_channels"]
    models["meg"] = _build_simple_conv(config, n_sensors, n_features, n_subjects)
    return models


def _build_deep_mel(config: Config, n_features: int) -> DeepMel:
    params = dict(config.feature_model_params)
    allowed = inspect.signature(DeepMel).parameters
    for name in params:
        check_choice("feature_model_params", name, allowed)
    return DeepMel(n_features, **params)


def _build_simple_conv(
    config: Config, n_sensors: int, n_outputs: int, n_subjects: int
) -> SimpleConv:
    options = {
        name: value
        for name, value in vars(config.simpleconv).items()
        if name in inspect.signature(SimpleConv).parameters and name != "hidden"
    }
    hidden = config.simpleconv.hidden.meg
    if hidden is None:
        raise ValueError(
            "simpleconv.hidden.meg isn't set: how many channels should the encoder have?"
        )
    n_room = _room_for_subjects(config, n_subjects)
    return SimpleConv(n_sensors, n_outputs, n_room, hidden, **options)


def _room_for_subjects(config: Config, n_subjects: int) -> int:
    n_room = config.override_n_subjects_model or n_subjects
    if n_room < n_subjects:
        raise ValueError(
            f"override_n_subjects_model={n_room}, but there are {n_subjects} subjects: make it at "
            "least that, or null."
        )
    return n_room
