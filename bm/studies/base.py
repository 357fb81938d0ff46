"""What a study is, and how a selection of the configuration finds it."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from bm.core.cache import Cache
from bm.core.messages import check_choice, check_new, did_you_mean
from bm.recordings import Recording

registry: dict[str, type["Study"]] = {}
"""Studies by the name that selections use (`study: NAME`)."""


class Study(ABC):
    """A dataset on disk.

    A subclass takes its options as keyword arguments of `__init__`, `path` first: every key of a
    selection but `study` reaches it by name.

    Parameters
    ----------
    path : root folder of the data.
    cache : where recordings keep what they compute.
    """

    name: ClassVar[str]

    def __init__(self, path: str | Path | None = None, *, cache: Cache):
        self.path = None if path is None else Path(path).expanduser().absolute()
        self.cache = cache

    @abstractmethod
    def recordings(self) -> Iterator[Recording]:
        """All recordings in a fixed order; those without files are skipped, counted and logged."""


def register(study: type[Study]) -> type[Study]:
    """Class decorator: make a study known by its `name`.

    Raises
    ------
    ValueError : another study has that name.
    """
    check_new("study", study.name, study, registry)
    registry[study.name] = study
    return study


def where_from(name: str) -> str:
    """What to do if a published study isn't there."""
    return (
        "How to get the data: docs/downloads.md. Where they are, if elsewhere: "
        f"study_paths.default.{name}=FOLDER"
    )


def from_selection(
    selection: Mapping[str, Any], cache: str | Path | Cache = "./cache"
) -> Iterator[Recording]:
    """Recordings of a selection such as ``{"study": "bids", "path": "/data/mine"}``.

    Parameters
    ----------
    selection : `study` names the class; `events_filter` (a pandas query on the events) is for all
        studies; every other key is an option of that study.
    cache : folder for computed files.

    Raises
    ------
    ValueError : the study or one of its options doesn't exist.
    """
    options = dict(selection)
    name = options.pop("study", None)
    check_choice("study", name, registry)
    events_filter = options.pop("events_filter", None)
    study_class = registry[str(name)]
    allowed = [option for option in inspect.signature(study_class).parameters if option != "cache"]
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"Study {name!r} has no option {option!r}. {did_you_mean(option, allowed)}"
            )
    study = study_class(**options, cache=cache if isinstance(cache, Cache) else Cache(cache))
    for recording in study.recordings():
        recording.events_filter = events_filter
        yield recording
