"""Arguments of scripts: ``key=value``, each turned into what the field of a dataclass asks for."""

import typing
from pathlib import Path
from types import UnionType
from typing import Any

SWITCHES = {"true": True, "1": True, "false": False, "0": False}
KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


class UsageError(ValueError):
    """The command line isn't understood."""


def convert(hint: Any, value: str, key: str) -> Any:
    """Value of a text, a number, a switch, a path, or a list of texts.

    Parameters
    ----------
    hint : type of the field.
    value : as typed.
    key : its name, for the message.

    Raises
    ------
    UsageError : the value is of another type.
    """
    if typing.get_origin(hint) in (typing.Union, UnionType):
        (hint,) = [option for option in typing.get_args(hint) if option is not type(None)]
    if typing.get_origin(hint) is list:
        names = [name.strip(" '\"") for name in value.strip("[]").split(",")]
        return list(dict.fromkeys(filter(None, names)))
    try:
        if hint is bool:
            return SWITCHES[value.lower()]
        return Path(value).expanduser() if hint is Path else hint(value)
    except (ValueError, KeyError) as error:
        raise UsageError(f"{key}={value} should be {KINDS[hint]}.") from error
