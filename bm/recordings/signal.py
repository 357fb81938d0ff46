"""A preprocessed recording: one contiguous array, time first, with its sensors."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bm.core.cache import write_json
from bm.recordings.sensors import Sensors

DATA, POSITIONS, POSITIONS_3D, DESCRIPTION = (
    "data.npy",
    "positions.npy",
    "positions_3d.npy",
    "signal.json",
)


@dataclass(frozen=True)
class Signal:
    """Brain signal of one recording at the rate of training.

    Attributes
    ----------
    data : [T, C] float32, mapped from disk; SI units (T, T/m or V).
    sample_rate : Hz.
    sensors : names and positions of the C sensors; flat or broken ones have no position and are 0.
    """

    data: np.ndarray
    sample_rate: float
    sensors: Sensors

    @property
    def n_samples(self) -> int:
        """Length T in samples."""
        return int(self.data.shape[0])

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sample_rate

    @classmethod
    def load(cls, folder: Path) -> "Signal":
        """Open a stored signal; the data are mapped, not read."""
        description = json.loads((folder / DESCRIPTION).read_text())
        sensors = Sensors(
            description["names"], np.load(folder / POSITIONS), np.load(folder / POSITIONS_3D)
        )
        return cls(np.load(folder / DATA, mmap_mode="r"), description["sample_rate"], sensors)

    def describe(self, folder: Path) -> None:
        """Store all but the data in `folder`."""
        write_json(
            folder / DESCRIPTION, {"names": self.sensors.names, "sample_rate": self.sample_rate}
        )
        np.save(folder / POSITIONS, self.sensors.positions)
        np.save(folder / POSITIONS_3D, self.sensors.positions_3d)
