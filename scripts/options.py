"""Arguments of scripts that work on recordings: their own options, and overrides as in `dora run`.

Enters: ``key=value`` arguments. Leaves: a dataclass with the options, and a configuration.
"""

import typing
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from bm.config import CONF, Config, ConfigError, from_hydra
from bm.core.messages import did_you_mean
from bm.train import main as experiment
from scripts.arguments import UsageError, convert

Options = TypeVar("Options")


def read_options(kind: type[Options], arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Divide arguments into a script's options and overrides of the configuration.

    Parameters
    ----------
    kind : dataclass of the options: texts, numbers, switches, paths, and lists of texts.
    arguments : ``key=value``; keys that `kind` doesn't have must be keys of the configuration.

    Raises
    ------
    UsageError : an unknown or repeated key, or a value that is missing or of the wrong type.
    """
    values, overrides = divide(kind, arguments)
    if not values.get("selections"):
        raise UsageError("Say which recordings are meant: 'selections=[NAME,...]'")
    return kind(**values), overrides


def read_own(kind: type[Options], arguments: Sequence[str]) -> Options:
    """Read the options of a script that takes no overrides.

    Raises
    ------
    UsageError : an unknown or repeated key, or a value that is missing or of the wrong type.
    """
    values, _ = divide(kind, arguments, ())
    return kind(**values)


def divide(
    kind: type[Any], arguments: Sequence[str], shared: Collection[str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Values of a script's options, and the arguments whose keys are among the shared ones.

    Parameters
    ----------
    kind, arguments : as for `read_options`.
    shared : None: all keys of the configuration.

    Raises
    ------
    UsageError : as `read_options`.
    """
    if shared is None:
        shared = {*Config.__dataclass_fields__, *(path.name for path in CONF.iterdir())}
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    overrides = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        is_own = key in hints
        if not is_own and key.lstrip("+~").split(".")[0] not in shared:
            hint = did_you_mean(key, hints).removesuffix(".")
            others = "; and all keys of the configuration" if shared else ""
            raise UsageError(f"Unknown option {key!r}. {hint}{others}.")
        if not equals or not value.strip():
            raise UsageError(f"Option {key} needs a value: {key}=...")
        if not is_own:
            overrides.append(argument)
        elif key in values:
            raise UsageError(f"Option {key} is given twice.")
        else:
            values[key] = convert(hints[key], value.strip(), key)
    return values, overrides


def compose(selections: Sequence[str], overrides: Sequence[str]) -> Config:
    """Configuration that ``dora run`` would have with these overrides.

    Raises
    ------
    UsageError : a key or value isn't what it should be.
    """
    arguments = [f"dset.selections=[{','.join(selections)}]", *overrides]
    try:
        return from_hydra(experiment.get_xp(arguments).cfg)
    except ConfigError as error:
        raise UsageError(str(error)) from error
