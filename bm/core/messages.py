"""Error messages that carry the remedy, and logs that are counted."""

import difflib
from collections.abc import Iterable, Mapping


class DataError(ValueError):
    """The user's files are missing, broken or contradictory; the message names the file."""


def did_you_mean(name: object, allowed: Iterable[object]) -> str:
    """Name the closest allowed value and list them all, for the end of an error message."""
    names = [str(value) for value in allowed]
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(sorted(names)) or '(none)'}."


def check_choice(what: str, value: object, allowed: Iterable[object]) -> None:
    """Raise a ValueError that names the valid values unless `value` is one of them."""
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(f"{what}={value!r} does not exist. {did_you_mean(value, allowed)}")


def check_new(what: str, name: str, kind: type, registry: Mapping[str, type]) -> None:
    """Raise a ValueError if another module has registered something by this name already."""
    known = registry.get(name)
    if known is not None and known.__module__ != kind.__module__:
        raise ValueError(
            f"There is a {what} {name!r} already, in {known.__module__}: {kind.__module__} needs "
            "another name."
        )
