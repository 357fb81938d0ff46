"""From a configuration to models: the brain encoder and, if there is one, the feature model."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bm.classes import Columns, RegressionClassificationLoss
from bm.config import Config
from bm.core.messages import check_choice
from bm.features import Feature
from bm.features.chunk import Wav2VecChunk
from bm.losses import ClipLoss, RegressionLoss, Similarity
from bm.models import (
    ConvRNN,
    DeepMel,
    ExternalEncoder,
    OneHot,
    SegmentSound,
    SimpleConv,
    build_external,
)
from bm.schema import ClipConfig
from bm.segments import SegmentDataset, WindowRule


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
    parts = _build_feature_parts(config, features)
    if features:
        n_features = sum(one.n for one in columns_of(config, features))
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


def build_loss(config: Config, features: Sequence[Feature], train: SegmentDataset) -> nn.Module:
    """Loss of estimates and targets.

    Parameters
    ----------
    config : the experiment.
    features : that are decoded.
    train : training segments, for the weights of classes.

    Raises
    ------
    ValueError : an option is set that belongs to another loss.
    """
    if config.optim.loss != "clip":
        _check_not_contrastive(config)
    if config.optim.loss == "regression_classification":
        loss = RegressionClassificationLoss(columns_of(config, features))
        if config.optim.use_weighting:
            loss.weigh(train, config.task.mask_loss)
        return loss
    if config.optim.use_weighting:
        raise ValueError(
            "optim.use_weighting=true weighs classes, which only "
            f"optim.loss=regression_classification has, not {config.optim.loss}."
        )
    if config.optim.loss == "clip":
        n_features = sum(one.n for one in columns_of(config, features))
        if config.feature_model_name == "deep_mel":
            n_features = config.feature_model_params["n_out_channels"]
        return build_contrastive(config, n_features)
    return RegressionLoss(1 if config.optim.loss == "l1" else 2)


def build_contrastive(config: Config, n_features: int) -> ClipLoss:
    """Contrastive loss of estimates and targets with so many features."""
    clip = config.clip
    similarity = Similarity(
        window=(clip.tmin, clip.tmax),
        training_window=(clip.tmin_train, clip.tmax_train),
        center=clip.center,
        pool=clip.pool,
        linear=clip.linear,
        n_features=n_features,
        twin=clip.twin,
        normalise=clip.normalise,
        temperature=clip.temperature,
        sample_rate=config.dset.sample_rate,
    )
    return ClipLoss(similarity, clip.duplicates, clip.symmetric, clip.objective)


def _check_not_contrastive(config: Config) -> None:
    """Raise a ValueError if options of the contrastive loss are set, and another is chosen."""
    optim, default = config.optim, ClipConfig()
    for name, value in vars(config.clip).items():
        if value != getattr(default, name):
            raise ValueError(f"clip.{name}={value} is for optim.loss=clip, not {optim.loss}.")
    if optim.negatives_scope == "all" or optim.negatives is not None:
        raise ValueError(
            "optim.negatives and optim.negatives_scope=all are for the contrastive loss: "
            f"optim.loss={optim.loss} has no negatives."
        )


def columns_of(config: Config, features: Sequence[Feature]) -> list[Columns]:
    """Where each feature stands in the target; a class has a column of its own if it is told."""
    tells_classes = config.optim.loss == "regression_classification"
    columns: list[Columns] = []
    for feature in features:
        first = columns[-1].first + columns[-1].n if columns else 0
        is_class = tells_classes and feature.cardinality is not None
        n = feature.dimension
        if isinstance(feature, Wav2VecChunk):
            n = feature.encoded_dimension
        elif is_class and feature.cardinality is not None:
            n = feature.cardinality
        columns.append(Columns(feature.name, first, n, is_class))
    return columns


def _build_feature_parts(config: Config, features: Sequence[Feature]) -> list[nn.Module]:
    """What turns the tables of features into targets: encoders of sound, classes of labels."""
    parts: list[nn.Module] = []
    for feature, one in zip(features, columns_of(config, features), strict=True):
        if isinstance(feature, Wav2VecChunk):
            parts.append(
                SegmentSound(feature.encoder(), one.first, feature.dimension, feature.device)
            )
        elif one.is_class:
            parts.append(OneHot(one.first, one.n))
    return parts


def _build_deep_mel(config: Config, n_features: int) -> DeepMel:
    if config.optim.loss == "regression_classification":
        raise ValueError(
            "feature_model=deep_mel mixes features, so that none is a class any more: choose "
            "another optim.loss than regression_classification."
        )
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
