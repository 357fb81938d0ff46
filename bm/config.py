"""The configuration as plain dataclasses: the only place where Hydra's objects turn into ours.

YAML composes, Dora signs, then `from_hydra` checks every key and type. Below this module nobody sees a
configuration object of Hydra. Field names and defaults are those of ``conf/``; comments there say what each
key does.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

from omegaconf import DictConfig, OmegaConf

from bm.core.messages import did_you_mean

CONF = Path(__file__).parent.parent / "conf"


@dataclass(frozen=True)
class WandbConfig:
    use_wandb: bool = False
    project: str = "brainmagick"
    group: str = "brainmagick-group"


@dataclass(frozen=True)
class OptimConfig:
    name: str = "adam"
    lr: float = 3e-4
    beta2: float = 0.999
    epochs: int = 40
    batch_size: int = 32
    loss: str = "l1"
    use_weighting: bool = False
    max_batches: int | None = None
    svd: float = 0.0
    negatives: int | None = None
    negative_pool_size: int | None = None
    precision: str = "fp32"


@dataclass(frozen=True)
class ClipConfig:
    linear: int | None = None
    twin: bool = True
    pool: bool = False
    tmin: float | None = None
    tmax: float | None = None
    tmin_train: float | None = None
    tmax_train: float | None = None
    center: bool = False


@dataclass(frozen=True)
class TestConfig:
    wer_negatives: int = 10000
    wer_topx: int = 10
    wer_random: bool = False
    wer_recordings: int = 40
    wer_study: str | None = None


@dataclass(frozen=True)
class TestWindowConfig:
    tmin: float | None = None
    tmax: float | None = None
    condition: float | str | None = "word"


@dataclass(frozen=True)
class DsetConfig:
    selections: list[str] = field(default_factory=lambda: ["gwilliams2022"])
    tmin: float = -0.5
    tmax: float = 2.5
    n_recordings: int = 1000
    n_subjects: int | None = None
    n_subjects_test: int | None = None
    shuffle_recordings_seed: int = -1
    skip_recordings: int = 0
    test_ratio: float = 0.2
    valid_ratio: float = 0.1
    remove_ratio: float = 0.0
    condition: float | str = 0.5
    apply_baseline: bool = True
    min_block_duration: float = 6
    force_uid_assignement: bool = False
    min_n_blocks_per_split: int = 1
    ignore_end_in_block: bool = False
    ignore_start_in_block: bool = False
    sample_rate: float = 120
    highpass: float = 0
    event_mask: bool = True
    split_wav_as_block: bool = True
    allow_empty_split: bool = False
    autoreject: bool = False
    test: TestWindowConfig = field(default_factory=TestWindowConfig)
    features: list[str] = field(default_factory=lambda: ["Wav2VecTransformer"])
    extra_test_features: list[str] = field(default_factory=list)
    features_params: dict[str, dict[str, Any]] = field(default_factory=dict)
    bandpass: list[float] | None = None
    notch: float | None = None
    block_grouping: str = "recording_time"
    residency: str = "auto"
    on_bad_recording: str = "skip"
    control: str = "none"


@dataclass(frozen=True)
class ScalerConfig:
    per_channel: bool = False
    n_samples_per_recording: int = 200
    n_samples_features: int = 8000


@dataclass(frozen=True)
class NormConfig:
    scaler: ScalerConfig = field(default_factory=ScalerConfig)
    max_scale: float = 20.0
    clip: bool = True
    exclude_empty_features: bool = False


@dataclass(frozen=True)
class TaskConfig:
    type: str = "decode"
    meg_init: float = 0.3
    lowpass: float = 0
    offset_meg_ms: float = 0
    lowpass_gt: bool = True
    lowpass_gt_test: bool = False
    mask_loss: bool = False
    loss: str | None = None


@dataclass(frozen=True)
class HiddenConfig:
    meg: int | None = None
    features: int | None = None


@dataclass(frozen=True)
class SimpleConvConfig:
    hidden: HiddenConfig = field(default_factory=HiddenConfig)
    concatenate: bool = False
    depth: int = 4
    linear_out: bool = False
    complex_out: bool = False
    kernel_size: int = 5
    dilation_growth: int = 2
    dilation_period: int | None = None
    skip: bool = False
    post_skip: bool = False
    growth: float = 1.0
    scale: float | None = None
    rewrite: bool = False
    groups: int = 1
    glu: int = 0
    glu_context: int = 0
    glu_glu: bool = True
    gelu: bool = False
    dual_path: int = 0
    conv_dropout: float = 0.0
    dropout_input: float = 0.0
    batch_norm: bool = False
    relu_leakiness: float = 0.0
    subject_dim: int = 64
    subject_layers: bool = False
    embedding_scale: float = 1.0
    subject_layers_dim: str = "input"
    subject_layers_id: bool = False
    n_fft: int | None = None
    fft_complex: bool = True
    merger: bool = False
    merger_pos_dim: int = 256
    merger_channels: int = 270
    merger_dropout: float = 0.2
    merger_penalty: float = 0.0
    merger_per_subject: bool = False
    dropout: float = 0.0
    dropout_rescale: bool = True
    initial_linear: int = 0
    initial_depth: int = 1
    initial_nonlin: bool = False


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    num_prints: int = 5
    device: str = "cuda"
    num_workers: int = 2
    verbose: int = 0
    show: int = 0
    download_only: bool = False
    continue_sig: str | None = None
    continue_best: bool = True
    seed: int = 2036
    dummy: Any = None
    cache: str = "./cache"
    features_models: str = "./features_models"
    early_stop_patience: int = 10
    eval_every: int = 1
    eval_train_set: bool = False
    override_n_subjects_model: int | None = None
    model_name: str = "simpleconv"
    feature_model_name: str | None = None
    feature_model_params: dict[str, Any] = field(default_factory=dict)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    test: TestConfig = field(default_factory=TestConfig)
    dset: DsetConfig = field(default_factory=DsetConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    simpleconv: SimpleConvConfig = field(default_factory=SimpleConvConfig)
    convrnn: dict[str, Any] = field(default_factory=dict)
    selections: dict[str, dict[str, Any]] = field(default_factory=dict)
    study_paths: dict[str, dict[str, Any]] = field(default_factory=dict)
    slurm: dict[str, Any] = field(default_factory=dict)


UNSUPPORTED = {
    "wandb.use_wandb": "metrics are in history.json",
    "eval_train_set": "nothing ever read it",
    "optim.use_weighting": "only the regression_classification loss would use it",
    "optim.svd": "the penalty isn't available",
    "optim.negatives": "the negatives of a batch are its other segments",
    "optim.negative_pool_size": "the negatives of a batch are its other segments",
    "clip.linear": "the projection isn't available",
    "clip.twin": "it only mattered together with clip.linear",
    "clip.pool": "pooling over time isn't available",
    "clip.center": "centring isn't available",
    "clip.tmin": "choose the window with dset.tmin",
    "clip.tmax": "choose the window with dset.tmax",
    "clip.tmin_train": "choose the window with dset.tmin",
    "clip.tmax_train": "choose the window with dset.tmax",
    "dset.autoreject": "clamping (norm.max_scale) takes its place",
    "dset.extra_test_features": "name them in dset.features",
    "task.lowpass": "filter the signal with dset.bandpass",
    "task.lowpass_gt": "it only mattered together with task.lowpass",
    "task.lowpass_gt_test": "it only mattered together with task.lowpass",
    "task.meg_init": "it belongs to the encode task, which isn't available",
    "simpleconv.concatenate": "the encoder has one input",
    "simpleconv.hidden.features": "the encoder has one input",
    "simpleconv.post_skip": "nothing ever set it",
    "simpleconv.growth": "all layers are equally wide",
    "simpleconv.scale": "layer scale isn't available",
    "simpleconv.rewrite": "nothing ever set it",
    "simpleconv.groups": "nothing ever set it",
    "simpleconv.glu_glu": "gates are always gated linear units",
    "simpleconv.dual_path": "it never worked as published",
    "simpleconv.n_fft": "it never worked as published",
    "simpleconv.fft_complex": "it only mattered together with simpleconv.n_fft",
    "simpleconv.merger_penalty": "it had no gradient",
    "simpleconv.merger_per_subject": "attention is shared by all subjects",
    "simpleconv.dropout": "use simpleconv.merger_dropout",
    "simpleconv.dropout_rescale": "it only mattered together with simpleconv.dropout",
}
"""Published keys that must keep their default, and why (or what to use instead)."""

CHOICES = {
    "optim.name": ("adam",),
    "optim.loss": ("clip", "l1", "mse"),
    "optim.precision": ("fp32", "bf16"),
    "model_name": ("simpleconv",),
    "feature_model_name": (None, "deep_mel"),
    "task.type": ("decode",),
    "task.loss": (None,),
    "dset.control": ("none", "noise", "shuffled"),
}
"""What can be chosen; other published values belong to parts that aren't available."""


class ConfigError(ValueError):
    """A key or value of the configuration is not what it should be."""


def from_hydra(cfg: DictConfig) -> Config:
    """Check a composed configuration and return it as plain dataclasses.

    Raises
    ------
    ConfigError : an unknown key, a value of the wrong type or out of what can be chosen, or a retired
        key that was set.
    """
    values = OmegaConf.to_container(cfg, resolve=True)
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration should be a mapping, not {type(values).__name__}.")
    for section in ("dora", "hydra"):
        values.pop(section, None)
    config = from_dict(values)
    _check(config)
    return config


def from_dict(values: Mapping[Any, Any]) -> Config:
    """Build a `Config` from nested mappings, such as `to_dict` gives."""
    built = _build(Config, values, "")
    assert isinstance(built, Config)
    return built


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dictionaries of a configuration."""
    return dataclasses.asdict(config)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves.update(flatten(value, f"{name}."))
        else:
            leaves[name] = value
    return leaves


def provenance(
    config: Config, overrides: typing.Sequence[str], choices: Mapping[str, str]
) -> list[tuple[str, Any, str]]:
    """Every value that is not the default of ``config.yaml``, and where it came from.

    Parameters
    ----------
    config : the experiment.
    overrides : arguments of the command line, ``key=value``.
    choices : chosen file of each configuration group.

    Returns
    -------
    (key, value, source) in the order of the configuration.
    """
    told = {override.lstrip("+~").split("=", 1)[0] for override in overrides}
    defaults = flatten(to_dict(Config()))
    files = {group: _leaves_of(group, name) for group, name in choices.items() if name != "default"}
    entries = []
    for key, value in flatten(to_dict(config)).items():
        sources = [f"{group}={choices[group]}" for group, leaves in files.items() if key in leaves]
        if any(key == name or key.startswith(f"{name}.") for name in told):
            entries.append((key, value, "command line"))
        elif key in defaults and value != defaults[key] and sources:
            entries.append((key, value, sources[-1]))
    return entries


def _leaves_of(group: str, name: str) -> dict[str, Any]:
    path = CONF / group / f"{name}.yaml"
    if not path.exists():
        return {}
    values = OmegaConf.to_container(OmegaConf.load(path))
    return flatten(values) if isinstance(values, dict) else {}


def _check(config: Config) -> None:
    leaves, defaults = flatten(to_dict(config)), flatten(to_dict(Config()))
    for key, reason in UNSUPPORTED.items():
        if leaves[key] != defaults[key]:
            raise ConfigError(
                f"{key}={leaves[key]!r} has no effect in bm: {reason}. Leave it at {defaults[key]!r}."
            )
    for key, allowed in CHOICES.items():
        if leaves[key] not in allowed:
            raise ConfigError(
                f"{key}={leaves[key]!r} isn't available. {did_you_mean(leaves[key], allowed)}"
            )


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'The configuration'} is a group of keys, not {values!r}.")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ConfigError(f"Unknown key {where}{key}. {did_you_mean(key, hints)}")
    return kind(
        **{key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()}
    )


def _convert(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{key}.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        for option in options:
            try:
                return _convert(option, value, key)
            except ConfigError:
                if option is options[-1]:
                    raise
    if origin is list and isinstance(value, list):
        return [_convert(arguments[0], item, f"{key}[{index}]") for index, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {name: _convert(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{key}={value!r} should be {_name(hint)}.")


def _name(hint: Any) -> str:
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    return names.get(hint) or {list: "a list", dict: "a group of keys"}.get(
        typing.get_origin(hint), str(hint)
    )
