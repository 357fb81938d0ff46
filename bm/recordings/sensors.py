"""Where the sensors are, and which of them can be used."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import mne
import numpy as np

from bm.core.layout import NO_POSITION

logger = logging.getLogger(__name__)

HEAD_BOX = 0.4
"""Edge in metres of the cube around the origin that 3-D positions are scaled from."""


@dataclass(frozen=True)
class Sensors:
    """Names and places of a recording's sensors.

    Attributes
    ----------
    names : C names.
    positions : [C, 2] in the layout's plane, each axis scaled to 0..1; `NO_POSITION` where unknown.
    positions_3d : [C, 3] metres in head coordinates (in those of the device where the file doesn't
        say where the head was); NaN where unknown.
    """

    names: list[str]
    positions: np.ndarray
    positions_3d: np.ndarray

    @classmethod
    def from_info(cls, info: "mne.Info", source: str) -> "Sensors":
        """Read the sensors of a recording; those without a position are counted and logged."""
        names = list(info["ch_names"])
        positions = _layout_positions(info, source)
        n_missing = int((positions[:, 0] == NO_POSITION).sum())
        if n_missing:
            missing = [names[index] for index in np.flatnonzero(positions[:, 0] == NO_POSITION)]
            logger.warning(
                "%s: %d of %d sensors have no position and are masked in spatial attention: %s",
                source,
                n_missing,
                len(names),
                listed(missing),
            )
        return cls(names, positions, _digitized_places(info))

    def masked(self, unusable: np.ndarray) -> "Sensors":
        """The same sensors, those marked `unusable` [C] without a position."""
        positions, places = self.positions.copy(), self.positions_3d.copy()
        positions[unusable] = NO_POSITION
        places[unusable] = np.nan
        return Sensors(self.names, positions, places)

    def places(self, n_dimensions: int) -> np.ndarray:
        """[C, n_dimensions] places in 0..1 for spatial attention; `NO_POSITION` where unknown.

        2 dimensions are `positions`; 3 are `positions_3d`, a cube of `HEAD_BOX` scaled to 0..1.
        """
        if n_dimensions == 2:
            return self.positions
        if n_dimensions != 3:
            raise ValueError(f"dset.sensor_dimensions={n_dimensions}: choose 2 or 3.")
        scaled = np.clip(0.5 + self.positions_3d / HEAD_BOX, 0, 1)
        return np.where(np.isnan(scaled), NO_POSITION, scaled).astype(np.float32)


def listed(names: Sequence[str], n_shown: int = 8) -> str:
    """Names for a log message, the first few of many."""
    return ", ".join(names[:n_shown]) + (", ..." if len(names) > n_shown else "")


def _layout_positions(info: "mne.Info", source: str) -> np.ndarray:
    """[C, 2] positions in the plane, each axis scaled to 0..1 over the sensors that are present."""
    names = info["ch_names"]
    positions = np.full((len(names), 2), NO_POSITION, dtype=np.float32)
    unmarked = info.copy()
    unmarked["bads"] = []  # a layout leaves out bad sensors; here they have a place
    try:
        layout = mne.channels.find_layout(unmarked, exclude=_undigitized(info))
    except (RuntimeError, ValueError, IndexError) as error:
        logger.warning("%s: no sensor layout (%s).", source, error)
        return positions
    if layout is None:
        return positions
    places = dict(zip(layout.names, layout.pos[:, :2], strict=True))
    plain = [name if name in places else name.split("-")[0] for name in names]  # CTF: MLC11-4304
    found = [index for index, name in enumerate(plain) if name in places]
    if not found:
        return positions
    raw = np.array([places[plain[index]] for index in found])
    extent = np.ptp(raw, axis=0)
    extent[extent == 0] = 1.0
    positions[found] = (raw - raw.min(axis=0)) / extent
    return positions


def _undigitized(info: "mne.Info") -> list[str]:
    """Names of electrodes without a place: a single one would keep MNE from placing the rest."""
    unknown = np.isnan(_digitized_places(info)[:, 0])
    kinds = zip(info["ch_names"], info.get_channel_types(), unknown, strict=True)
    return [name for name, kind, is_unknown in kinds if kind == "eeg" and is_unknown]


def _digitized_places(info: "mne.Info") -> np.ndarray:
    """[C, 3] metres; NaN where the file has none."""
    places = np.array([channel["loc"][:3] for channel in info["chs"]], dtype=np.float64)
    unknown = ~np.isfinite(places).all(axis=1) | (places == 0).all(axis=1)
    if info["dev_head_t"] is not None:
        frames = np.array([channel["coord_frame"] for channel in info["chs"]])
        of_device = frames == mne.io.constants.FIFF.FIFFV_COORD_DEVICE
        places[of_device] = mne.transforms.apply_trans(info["dev_head_t"], places[of_device])
    places[unknown] = np.nan
    return places
