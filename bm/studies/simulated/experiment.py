"""What the recordings of one simulated study share: the story and the listeners."""

from functools import cached_property
from typing import Any

import numpy as np
import soundfile

from bm.core.cache import Cache
from bm.studies.simulated.simulation import Listener, make_listener, stimulus_drive
from bm.studies.simulated.speech import Speech, tell_story

VERSION = 3
"""Of the code that simulates, and of its constants: part of every cache key."""


class Experiment:
    """What the recordings of one simulated study share: the story and the listeners.

    Parameters are those of `Synthetic`.
    """

    def __init__(
        self,
        cache: Cache,
        modality: str,
        n_sensors: int | None,
        snr: float,
        seed: int,
        n_minutes: float,
    ):
        self.cache = cache
        self.modality = modality
        self.n_sensors = n_sensors
        self.snr = snr
        self.seed = seed
        self.n_minutes = n_minutes
        self._listeners: dict[int, Listener] = {}

    @property
    def options(self) -> dict[str, Any]:
        """All that decides the signals."""
        return {
            "version": VERSION,
            "modality": self.modality,
            "n_sensors": self.n_sensors,
            "snr": self.snr,
            "seed": self.seed,
            "speech": self.speech.folder.name,
        }

    @cached_property
    def speech(self) -> Speech:
        """The story; spoken when first asked for."""
        return tell_story(self.cache, self.n_minutes)

    @cached_property
    def drives(self) -> list[np.ndarray]:
        """What drives the responses, [T, bands + 1] for each sound."""
        table = self.speech.table
        drives = []
        for index, path in enumerate(self.speech.sounds):
            audio, rate = soundfile.read(path, dtype="float32")
            onsets = table["start"][(table["sound"] == index) & (table["kind"] == "word")].to_numpy(
                float
            )
            drives.append(stimulus_drive(audio, rate, onsets))
        return drives

    def listener(self, subject: int) -> Listener:
        """The simulated person of that number."""
        if subject not in self._listeners:
            names = ("listener", self.seed, self.modality, subject)
            self._listeners[subject] = make_listener(
                self.modality, names, self.snr, self.drives[0], self.n_sensors
            )
        return self._listeners[subject]
