"""What a feature is. A new one is a small class with `@register`; nothing else needs to know it.

A feature turns each stimulus into a few rows of numbers, once, however many people heard it: a
`SoundFeature` a piece of sound into frames, an `EventFeature` an event (a word, a phoneme) into one
row. `bm.features.table` then lays the rows along the time of each recording.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from bm.core.messages import check_choice, check_new, did_you_mean

registry: dict[str, type["Feature"]] = {}
"""Features by the name that `dset.features` uses."""


class Feature(ABC):
    """A feature of the stimulus.

    Attributes
    ----------
    event_kind : kind of the events that carry it ("sound", "word", "phoneme", ...).
    dimension : F, columns of its table.
    normalizable : whether the scaler may centre and scale it (not where values are labels).
    cardinality : number of classes of a categorical feature; None for a continuous one.
    version : raise it whenever the same arguments give other numbers.
    """

    event_kind: ClassVar[str]
    normalizable: ClassVar[bool] = True
    cardinality: int | None = None
    dimension: int = 1
    version: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """Name in the registry."""
        return type(self).__name__

    @property
    def default(self) -> float:
        """Value where nothing is heard."""
        return 0.0


class SoundFeature(Feature):
    """A feature computed from sound.

    Attributes
    ----------
    input_rate : Hz, of the sound that it is given.
    frame_rate : Hz, of its frames; None: they are spread evenly over each piece.
    half : whether the cache keeps its frames in half precision.
    """

    event_kind = "sound"
    half: bool = False
    input_rate: int = 16_000
    frame_rate: float | None = None

    @property
    @abstractmethod
    def key(self) -> dict[str, Any]:
        """Every argument that changes the numbers; names the tables in the cache."""

    @abstractmethod
    def frames(self, sound: torch.Tensor) -> np.ndarray:
        """Frames [n, F] float32, evenly spaced over a piece of sound [n_samples] at `input_rate`.

        Raises
        ------
        DataError : the piece is too short.
        """

    def frames_of_many(self, sounds: Iterable[torch.Tensor]) -> Iterator[np.ndarray]:
        """Frames of many pieces, one array each, in their order; override it to work in batches.

        Parameters
        ----------
        sounds : the longest first; each is read from its file when it is asked for.
        """
        return map(self.frames, sounds)


class EventFeature(Feature):
    """A feature with one value per event.

    Attributes
    ----------
    only_onset : the value stands at the first sample of the event only, not at all it spans.
    columns : of the events, that the values follow from: events alike in them are computed once,
        however many heard them. Worth naming if it takes long.
    """

    event_kind = "word"
    only_onset: ClassVar[bool] = False
    columns: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def values(self, events: pd.DataFrame) -> np.ndarray:
        """Rows [n_events, F] of events of `event_kind`."""

    def cache_key(self, events: pd.DataFrame) -> dict[str, Any] | None:
        """Everything but `columns` that changes the values of these events; None: don't keep them.

        Needs `columns`.
        """
        return None


def register(feature: type[Feature]) -> type[Feature]:
    """Class decorator: make a feature known by the name of its class.

    Raises
    ------
    ValueError : another feature has that name.
    """
    check_new("feature", feature.__name__, feature, registry)
    registry[feature.__name__] = feature
    return feature


def make_features(
    names: Sequence[str], params: Mapping[str, Mapping[str, Any]], **shared: Any
) -> list[Feature]:
    """Build features by name, each with its own parameters.

    Parameters
    ----------
    names : of the features, in the order of their columns.
    params : arguments of each, by name.
    shared : arguments for all features that have a parameter of that name.

    Raises
    ------
    ValueError : a feature or one of its parameters doesn't exist.
    """
    features = []
    for name in names:
        check_choice("dset.features", name, registry)
        allowed = list(inspect.signature(registry[name]).parameters)
        arguments = {key: value for key, value in shared.items() if key in allowed}
        arguments.update(params.get(name, {}))
        for argument in arguments:
            if argument not in allowed:
                raise ValueError(
                    f"dset.features_params.{name} has no {argument!r}. "
                    f"{did_you_mean(argument, allowed)}"
                )
        features.append(registry[name](**arguments))
    return features
