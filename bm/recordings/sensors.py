"""Where the sensors are, and which of them can be used."""

import logging
from dataclasses import dataclass

import mne
import numpy as np

from bm.core.layout import NO_POSITION

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sensors:
    """Names and places of a recording's sensors.

    Attributes
    ----------
    names : C names.
    positions : [C, 2] in the layout's plane, each axis scaled to 0..1; `NO_POSITION` where unknown.
    positions_3d : [C, 3] metres in head (or device) coordinates; NaN where unknown.
    """

    names: list[str]
    positions: np.ndarray
    positions_3d: np.ndarray

    @classmethod
    def from_info(cls, info: mne.Info, source: str) -> "Sensors":
        """Read the sensors of a recording; those without a position are counted and logged."""
        names = list(info["ch_names"])
        positions = _layout_positions(info, source)
        n_missing = int((positions[:, 0] == NO_POSITION).sum())
        if n_missing:
            missing = [name for name, place in zip(names, positions, strict=True) if place[0] == NO_POSITION]
            logger.warning(
                "%s: %d of %d sensors have no position and are masked in spatial attention: %s%s",
                source, n_missing, len(names), ", ".join(missing[:8]), " ..." if n_missing > 8 else "",
            )  # fmt: skip
        places = np.array([channel["loc"][:3] for channel in info["chs"]], dtype=np.float64)
        unknown = ~np.isfinite(places).all(axis=1) | (places == 0).all(axis=1)
        places[unknown] = np.nan
        return cls(names, positions, places)

    def masked(self, unusable: np.ndarray) -> "Sensors":
        """The same sensors, those marked `unusable` [C] without a position."""
        positions, places = self.positions.copy(), self.positions_3d.copy()
        positions[unusable] = NO_POSITION
        places[unusable] = np.nan
        return Sensors(self.names, positions, places)


def _layout_positions(info: mne.Info, source: str) -> np.ndarray:
    """[C, 2] positions in the plane, each axis scaled to 0..1 over the sensors that are present."""
    positions = np.full((len(info["ch_names"]), 2), NO_POSITION, dtype=np.float32)
    unmarked = info.copy()
    unmarked["bads"] = []  # a layout leaves out bad sensors; here they have a place
    try:
        layout = mne.channels.find_layout(unmarked, exclude=[])
    except (RuntimeError, ValueError) as error:
        logger.warning("%s: no sensor layout (%s).", source, error)
        return positions
    places = dict(zip(layout.names, layout.pos[:, :2], strict=True))
    found = [index for index, name in enumerate(info["ch_names"]) if name in places]
    if not found:
        return positions
    raw = np.array([places[info["ch_names"][index]] for index in found])
    extent = np.ptp(raw, axis=0)
    extent[extent == 0] = 1.0
    positions[found] = (raw - raw.min(axis=0)) / extent
    return positions
