"""Check types on every call into bm while tests run: jaxtyping does shapes, beartype the rest."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

# An int is fine where a float is asked for.
CONF = BeartypeConf(is_pep484_tower=True)


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let `function` raise if an argument or the result isn't what its annotation says."""
    return beartype(conf=CONF)(function)


def install() -> None:
    """Check all of bm that is imported from now on."""
    install_import_hook("bm", "type_checks.checked")
