"""From a configuration to models: the brain encoder and, if there is one, the feature model."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bm.config import Config
from bm.core.messages import check_choice
from bm.features import Feature
from bm.features.chunk import Wav2VecChunk
from bm.models import (
    ConvRNN,
    DeepMel,
    ExternalEncoder,
    SegmentSound,
    SimpleConv,
    build_external,
)
from bm.segments import WindowRule


def build_models(
    config: Config,
    n_sensors: int,
    n_features: int,
    n_subjects: int,
    features: Sequence[Feature] = (),
) -> nn.ModuleDict:
    """Brain encoder ("meg") and, if there is one, a model of the features ("features").

    Parameters
    ----------
    config : the experiment.
    n_sensors : C, the largest number of sensors of any recording.
    n_features : F, size of all features together.
    n_subjects : S that are trained on.
    features : those whose columns these are; some come with a model of their own.
    """
    torch.manual_seed(config.seed)
    models = nn.ModuleDict()
    parts, n_features = _build_sound_encoders(features, n_features)
    if config.feature_model_name == "deep_mel":
        parts.append(_build_deep_mel(config, n_features))
        n_features = config.feature_model_params["n_out_channels"]
    if parts:
        models["features"] = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
    n_room = _room_for_subjects(config, n_subjects)
    if config.encoder.target is not None:
        models["meg"] = _build_external(config, n_sensors, n_features, n_room)
    elif config.model_name == "convrnn":
        models["meg"] = _build_conv_rnn(config, n_sensors, n_features, n_room)
    else:
        models["meg"] = _build_simple_conv(config, n_sensors, n_features, n_room, n_subjects)
    return models


def _build_sound_encoders(
    features: Sequence[Feature], n_features: int
) -> tuple[list[nn.Module], int]:
    """Encoders of the features that hold sound, and how many columns there are after them."""
    parts: list[nn.Module] = []
    first = 0
    for feature in features:
        n_columns = feature.dimension
        if isinstance(feature, Wav2VecChunk):
            parts.append(SegmentSound(feature.encoder(), first, n_columns, feature.device))
            n_features += feature.encoded_dimension - n_columns
            n_columns = feature.encoded_dimension
        first += n_columns
    return parts, n_features


def _build_deep_mel(config: Config, n_features: int) -> DeepMel:
    params = dict(config.feature_model_params)
    allowed = inspect.signature(DeepMel).parameters
    for name in params:
        check_choice("feature_model_params", name, allowed)
    return DeepMel(n_features, **params)


def _build_simple_conv(
    config: Config, n_sensors: int, n_outputs: int, n_room: int, n_subjects: int
) -> SimpleConv:
    if config.task.type == "encode":
        raise ValueError("task.type=encode needs an encoder that sees features: model=convrnn.")
    return SimpleConv(
        n_sensors,
        n_outputs,
        n_room,
        _hidden(config.simpleconv.hidden.meg, "simpleconv.hidden.meg"),
        n_axes=config.dset.sensor_dimensions,
        n_learned=n_subjects,
        **_options(SimpleConv, config.simpleconv),
    )


def _build_conv_rnn(config: Config, n_sensors: int, n_features: int, n_room: int) -> ConvRNN:
    """Encoding, features go in and brain signals come out."""
    options = _options(ConvRNN, config.convrnn)
    hidden = config.convrnn.hidden
    n_outputs = n_features
    if config.task.type == "encode":
        n_outputs = n_sensors
        options["n_features"] = n_features
        options["hidden_features"] = _hidden(hidden.features, "convrnn.hidden.features")
    width = _hidden(hidden.meg, "convrnn.hidden.meg")
    return ConvRNN(n_sensors, n_outputs, n_room, width, **options)


def _build_external(config: Config, n_sensors: int, n_outputs: int, n_room: int) -> ExternalEncoder:
    if config.task.type == "encode":
        raise ValueError("task.type=encode needs an encoder that sees features: model=convrnn.")
    dset = config.dset
    n_delay = int(config.task.offset_meg_ms / 1000 * dset.sample_rate)
    sizes = {
        "n_sensors": n_sensors,
        "n_outputs": n_outputs,
        "n_subjects": n_room,
        "n_axes": dset.sensor_dimensions,
        "n_times": WindowRule(dset.tmin, dset.tmax).n_times(dset.sample_rate) - n_delay,
        "sample_rate": dset.sample_rate,
    }
    return build_external(str(config.encoder.target), config.encoder.params, sizes)


def _options(kind: type[nn.Module], section: object) -> dict[str, Any]:
    """Settings of a section of the configuration that the model has a parameter for."""
    parameters = inspect.signature(kind).parameters
    return {
        name: value
        for name, value in vars(section).items()
        if name in parameters and name != "hidden"
    }


def _hidden(width: int | None, key: str) -> int:
    if width is None:
        raise ValueError(f"{key} isn't set: how many channels should the encoder have?")
    return width


def _room_for_subjects(config: Config, n_subjects: int) -> int:
    n_room = config.override_n_subjects_model or n_subjects
    if n_room < n_subjects:
        raise ValueError(
            f"override_n_subjects_model={n_room}, but there are {n_subjects} subjects: make it at "
            "least that, or null."
        )
    return n_room
