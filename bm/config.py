"""From Hydra's configuration to plain dataclasses: the only place where its objects turn into ours.

YAML composes, Dora signs, then `from_hydra` checks every key and type. Below this module nobody
sees a configuration object of Hydra.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bm.core.messages import did_you_mean
from bm.distrib import SCOPES
from bm.evaluation.audit import LEVELS
from bm.losses import DUPLICATES, NORMALISED, OBJECTIVES
from bm.optimizer import OPTIMIZERS, SCHEDULES
from bm.schema import Config, DsetConfig
from bm.segments.controls import CONTROLS
from bm.segments.prepare import GROUPINGS
from bm.segments.store import RESIDENCIES, STORAGES
from bm.training import AUTO, ON_BAD_LOSS, PRECISIONS

__all__ = ["CONF", "Config", "ConfigError", "DsetConfig", "from_dict", "from_hydra", "to_dict"]

CONF = Path(__file__).parent.parent / "conf"
DEFAULT_FILES = {
    "model_defaults": "defaults",
    "features_defaults": "features_defaults",
    "selections": "selections_definitions",
    "study_paths": "study_paths",
}
"""Files that say, with ``config.yaml``, what holds where nothing is chosen."""

UNSUPPORTED = {
    "eval_train_set": "nothing ever read it",
    "convrnn.concatenate": "each input has an encoder of its own",
    "convrnn.growth": "all layers are equally wide",
    "convrnn.attention": "nothing ever set it; simpleconv.transformer attends over time",
    "convrnn.heads": "it only mattered together with convrnn.attention",
    "simpleconv.concatenate": "the encoder has one input",
    "simpleconv.hidden.features": "the encoder has one input",
    "simpleconv.post_skip": "nothing ever set it",
    "simpleconv.growth": "all layers are equally wide",
    "simpleconv.rewrite": "nothing ever set it",
    "simpleconv.groups": "nothing ever set it",
    "simpleconv.glu_glu": "gates are always gated linear units",
    "simpleconv.merger_penalty": "it had no gradient",
}
"""Published keys, and groups, that must keep their default, and why (or what to use instead)."""

CHOICES = {
    "audit": LEVELS,
    "optim.name": OPTIMIZERS,
    "optim.schedule": SCHEDULES,
    "optim.loss": ("clip", "l1", "mse", "regression_classification"),
    "optim.precision": (AUTO, *PRECISIONS),
    "optim.negatives_scope": SCOPES,
    "optim.on_bad_loss": ON_BAD_LOSS,
    "clip.normalise": NORMALISED,
    "clip.duplicates": DUPLICATES,
    "clip.objective": OBJECTIVES,
    "optim.batch_norm_scope": SCOPES,
    "model_name": ("simpleconv", "convrnn"),
    "feature_model_name": (None, "deep_mel"),
    "task.type": ("decode", "encode"),
    "task.loss": (None, "l1", "mse"),
    "dset.block_grouping": GROUPINGS,
    "dset.residency": RESIDENCIES,
    "dset.storage": tuple(STORAGES),
    "dset.on_bad_recording": ("skip", "error"),
    "dset.control": CONTROLS,
}
"""What can be chosen; other published values belong to parts that aren't available."""


class ConfigError(ValueError):
    """A key or value of the configuration is not what it should be."""


def from_hydra(cfg: DictConfig) -> Config:
    """Check a composed configuration and return it as plain dataclasses.

    Raises
    ------
    ConfigError : an unknown key, a value of the wrong type or out of what can be chosen, or a
        retired key that was set.
    """
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration can't be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"The configuration should be a mapping, not {type(values).__name__}.")
    for section in ("dora", "hydra"):
        values.pop(section, None)
    config = from_dict(values)
    check(config)
    return config


def check(config: Config) -> None:
    """Check what types can't say: choices, and published keys that must keep their default.

    Raises
    ------
    ConfigError : a value isn't available.
    """
    leaves, defaults = flatten(to_dict(config)), default_leaves()
    for key, allowed in CHOICES.items():
        if leaves[key] not in allowed:
            raise ConfigError(
                f"{key}={leaves[key]!r} isn't available. {did_you_mean(leaves[key], allowed)}"
            )
    if config.task.loss not in (None, config.optim.loss):
        raise ConfigError(
            f"task.loss={config.task.loss!r}, but optim.loss={config.optim.loss!r} is what trains: "
            "make them the same, or leave task.loss at None."
        )
    for key, value in leaves.items():
        for retired, reason in UNSUPPORTED.items():
            if _is_within(key, retired) and (key not in defaults or value != defaults[key]):
                default = f" Leave it at {defaults[key]!r}." if key in defaults else ""
                raise ConfigError(f"{key}={value!r} has no effect in bm: {reason}.{default}")


def from_dict(values: Mapping[Any, Any]) -> Config:
    """Build a `Config` from nested mappings, such as `to_dict` gives."""
    built = _build(Config, values, "")
    assert isinstance(built, Config)
    return built


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dictionaries of a configuration."""
    return dataclasses.asdict(config)


def flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves.update(flatten(value, f"{name}."))
        else:
            leaves[name] = value
    return leaves


def explain_override(argv: Sequence[str], reason: str) -> str:
    """Why arguments ``key=value`` don't fit into the configuration, with the closest key."""
    problems = (_problem(argument) for argument in argv)
    composed = f"The configuration can't be composed from {list(argv)}: {' '.join(reason.split())}"
    return next((problem for problem in problems if problem), composed)


def default_leaves() -> dict[str, Any]:
    """Value of every key where nothing is chosen, by dotted key."""
    leaves = flatten(to_dict(Config()))
    for group, name in DEFAULT_FILES.items():
        leaves.update(_leaves_of(group, name))
    return leaves


def provenance(
    config: Config, overrides: Sequence[str], choices: Mapping[str, str | None]
) -> list[tuple[str, Any, str]]:
    """Every value that is not the default, and where it came from.

    Parameters
    ----------
    config : the experiment.
    overrides : arguments of the command line, ``key=value``.
    choices : chosen file of each configuration group.

    Returns
    -------
    (key, value, source) in the order of the configuration. What the command line says is listed
    even if it is the default.
    """
    told = {override.lstrip("+~").split("=", 1)[0] for override in overrides}
    defaults = default_leaves()
    files = {
        f"{group}={name}": _leaves_of(group, name)
        for group, name in choices.items()
        if name is not None and DEFAULT_FILES.get(group) != name
    }
    entries = []
    for key, value in flatten(to_dict(config)).items():
        sources = [source for source, leaves in files.items() if leaves.get(key) == value]
        if any(_is_within(key, name) for name in told):
            entries.append((key, value, "command line"))
        elif sources and (key not in defaults or value != defaults[key]):
            entries.append((key, value, sources[-1]))
    return entries


def _problem(argument: str) -> str | None:
    """What is wrong with one argument, if that can be said without the others."""
    key, equals, value = argument.partition("=")
    if not key or not equals:
        return f"{argument!r} isn't of the form KEY=VALUE, such as optim.lr=3e-4."
    if key.startswith(("+", "~", "hydra.")):
        return None
    leaves = default_leaves()
    files = {path.name: path for path in CONF.iterdir() if path.is_dir()}
    groups = {key.rsplit(".", depth)[0] for key in leaves for depth in range(1, key.count(".") + 1)}
    if key in files:
        known = [path.stem for path in files[key].glob("*.yaml")]
        return None if value in known else f"{argument} isn't there. {did_you_mean(value, known)}"
    if key in groups:
        return f"{key} is a group of keys: set one of those, such as {_first_within(key, leaves)}."
    if key not in leaves:
        ending = [leaf for leaf in leaves if leaf.endswith(f".{key}")]
        close = ending or difflib.get_close_matches(key, [*leaves, *files], n=1)
        first = sorted({leaf.split(".")[0] for leaf in leaves} | set(files))
        hint = f"Did you mean {close[0]!r}?" if close else f"Keys begin with: {', '.join(first)}."
        return f"Unknown key {key}. {hint} conf/config.yaml explains all keys."
    return _problem_of_value(argument)


def _problem_of_value(argument: str) -> str | None:
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return (
            f"The value of {argument!r} can't be read: lists are 'KEY=[A,B]', groups "
            "'KEY={A: 1}', and a text with other signs than letters is 'KEY=\"TEXT\"', quotes "
            "within quotes."
        )
    if override.is_sweep_override():
        return f"{argument!r} has several values: a list is 'KEY=[A,B]'; a grid runs several."
    return None


def _leaves_of(group: str, name: str) -> dict[str, Any]:
    """Leaves of one file of ``conf/``, by the keys that they have in the whole."""
    path = CONF / group / f"{name}.yaml"
    if not path.exists():
        return {}
    values = OmegaConf.to_container(OmegaConf.load(path))
    is_global = path.read_text().startswith("# @package _global_")
    return flatten(values, "" if is_global else f"{group}.") if isinstance(values, dict) else {}


def _first_within(group: str, leaves: Mapping[str, Any]) -> str:
    return next(key for key in leaves if _is_within(key, group))


def _is_within(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'The configuration'} should be a group of keys.")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise ConfigError(f"Unknown key {where}{key}. {did_you_mean(key, hints)}")
    return kind(
        **{key: _convert(hints[key], value, f"{where}{key}") for key, value in values.items()}
    )


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Check `value` against a type hint, and turn whole numbers into floats where it asks for one.

    Raises
    ------
    ConfigError : it is of another type.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, f"{key}.")
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, key)
    if origin is list and isinstance(value, list):
        return [_convert(arguments[0], item, f"{key}[{index}]") for index, item in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {
            str(name): _convert(arguments[1], item, f"{key}.{name}") for name, item in value.items()
        }
    if isinstance(hint, type) and isinstance(value, bool) is (hint is bool):
        if isinstance(value, hint):
            return value
        if hint is float and isinstance(value, int):
            return float(value)
    raise ConfigError(f"{key}={value!r} should be {_name(hint)}.")


def _convert_union(options: Sequence[Any], value: Any, key: str) -> Any:
    if value is None and type(None) in options:
        return None
    kinds = [option for option in options if option is not type(None)]
    if len(kinds) == 1:
        return _convert(kinds[0], value, key)
    for kind in kinds:
        try:
            return _convert(kind, value, key)
        except ConfigError:
            continue
    raise ConfigError(f"{key}={value!r} should be {' or '.join(_name(kind) for kind in kinds)}.")


def _name(hint: Any) -> str:
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    groups = {list: "a list, such as [A,B]", dict: "a group of keys"}
    return names.get(hint) or groups.get(typing.get_origin(hint)) or str(hint)
