"""Sensor positions, as models and recordings agree on them, and numbers at these places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NO_POSITION = -0.1
"""Both coordinates of a sensor that has no place in the layout: spatial attention leaves it out."""


@dataclass(frozen=True)
class SensorMap:
    """A number for each sensor of one layout: attention, or how well it is predicted.

    Attributes
    ----------
    title : whose sensors, or what the numbers are.
    names : C names.
    positions : [C, 2] in 0..1, `NO_POSITION` for sensors without a place.
    weights : [C] attention summed over virtual channels; or a correlation (`bm.encoding`).
    """

    title: str
    names: Sequence[str]
    positions: np.ndarray
    weights: np.ndarray
