"""Bring the sensors of a recording into the order that a trained model knows.

Enters: the sensors of the recordings that a model was trained on, and those of a new one. Leaves:
a matrix that makes of the new signals those that the model expects. A sensor of the same name is
taken as it is; one that the new recording doesn't have is interpolated from those around it.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are used: interpolation takes long
import torch

from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.recordings.sensors import Sensors, listed

logger = logging.getLogger(__name__)

FEWEST = 4
"""Sensors that anything can be interpolated from."""
SMOOTHING = 1e-3
"""Keeps interpolation stable where sensors share a place, as those of a triplet do."""


@dataclass(frozen=True)
class Montage:
    """Sensors as a model was trained on them.

    Attributes
    ----------
    names : of the C sensors.
    positions : [C, 2 or 3] in 0..1, as spatial attention sees them; `NO_POSITION` where unknown.
    """

    names: list[str]
    positions: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        return {"names": list(self.names), "positions": torch.from_numpy(self.positions)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Montage":
        """What `to_dict` gave."""
        return cls(list(values["names"]), values["positions"].numpy())


@dataclass(frozen=True)
class Matching:
    """How the sensors of a recording give those of a montage.

    Attributes
    ----------
    weights : [C, n] of the recording's n sensors, for each of the montage.
    positions : [C, 2 or 3]; `NO_POSITION` for a sensor that can't be used.
    n_matched, n_interpolated, n_masked : sensors taken by name, interpolated, and left out.
    by_name : whether names were compared at all; False: everything is interpolated.
    """

    weights: np.ndarray
    positions: np.ndarray
    n_matched: int
    n_interpolated: int
    n_masked: int
    by_name: bool

    def __str__(self) -> str:
        return (
            f"{len(self.positions)} sensors: {self.n_matched} by name, {self.n_interpolated} "
            f"interpolated, {self.n_masked} left out"
        )


def collect_montages(recordings: Iterable[Sensors], n_dimensions: int) -> list[Montage]:
    """Distinct montages of recordings, the most frequent first.

    A sensor that is masked in one recording has the place that it has in another.
    """
    found: dict[tuple[str, ...], np.ndarray] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for sensors in recordings:
        names, places = tuple(sensors.names), sensors.places(n_dimensions)
        counts[names] += 1
        known = found.setdefault(names, places)
        found[names] = np.where(known == NO_POSITION, places, known)
    return [Montage(list(names), found[names]) for names, _ in counts.most_common()]


def match_sensors(
    montages: Iterable[Montage], own: Sensors, usable: np.ndarray, n_dimensions: int, source: str
) -> Matching:
    """Find each sensor of the montage that fits best, by name, else by position.

    By name: what the recording doesn't have is interpolated from what it has, at the places known
    from training. Where fewer than half of the names agree, everything is interpolated, from the
    recording's own places.

    Parameters
    ----------
    montages : of the recordings that the model was trained on.
    own : sensors of the recording.
    usable : [n] false for those that are flat, broken or marked bad: as in training these are
        masked, and nothing is interpolated from them.
    n_dimensions : of positions.
    source : what to call the recording in messages.

    Raises
    ------
    DataError : too few sensors have a known name or a place.
    """
    pairs = [(montage, _find(montage.names, own.names)) for montage in montages]
    montage, found = max(pairs, key=lambda pair: (pair[1] >= 0).sum() / len(pair[1]))
    n_found = int((found >= 0).sum())
    by_name = n_found >= max(FEWEST, min(len(montage.names), len(own.names)) / 2)
    matching = (
        _by_name(montage, found, usable, source)
        if by_name
        else _by_position(montage, own, usable, n_dimensions, source)
    )
    if matching.n_interpolated or matching.n_masked:
        lacking = [name for name, index in zip(montage.names, found, strict=True) if index < 0]
        logger.warning("%s: %s. Not there: %s", source, matching, listed(lacking) or "(none)")
    else:
        logger.info("%s: %s.", source, matching)
    return matching


def as_it_is(own: Sensors, usable: np.ndarray, n_dimensions: int) -> Matching:
    """Sensors of a recording for a model that names none: all of them, in their own places."""
    weights = np.diag(usable.astype(np.float32))
    masked = ~usable[:, None]
    positions = np.where(masked, np.float32(NO_POSITION), own.places(n_dimensions))
    return Matching(weights, positions, int(usable.sum()), 0, int((~usable).sum()), False)


def _find(names: list[str], own: list[str]) -> np.ndarray:
    """[C] place of each name among the recording's own; -1 where it isn't there."""
    exact = {name: index for index, name in enumerate(own)}
    plain = _unique(own)
    wanted = _unique(names)
    of_plain = {names[index]: plain[name] for name, index in wanted.items() if name in plain}
    return np.array([exact.get(name, of_plain.get(name, -1)) for name in names])


def _unique(names: list[str]) -> dict[str, int]:
    """Place of each name without what systems add to it; names that are then alike are left out."""
    plain = [_plain(name) for name in names]
    counts = Counter(plain)
    return {name: index for index, name in enumerate(plain) if counts[name] == 1}


def _plain(name: str) -> str:
    """``MLC11-4304`` (CTF) is mlc11, ``EEG Fp1`` and ``Fp1.`` are fp1, ``MEG 0111`` is 0111."""
    plain = name.lower().split("-")[0].rstrip(".").replace(" ", "")
    return plain.removeprefix("eeg").removeprefix("meg") or plain


def _by_name(montage: Montage, found: np.ndarray, usable: np.ndarray, source: str) -> Matching:
    present = found >= 0
    good = present & usable[found]
    has_place = (montage.positions != NO_POSITION).all(axis=1)
    sources, missing = np.flatnonzero(good & has_place), np.flatnonzero(~present & has_place)
    weights = np.zeros((len(found), len(usable)))
    weights[good, found[good]] = 1.0
    if len(missing):
        places = montage.positions
        interpolated = _interpolation(places[sources], places[missing], source)
        weights[np.ix_(missing, found[sources])] = interpolated
    return _matching(weights, montage, int(good.sum()), len(missing), by_name=True)


def _by_position(
    montage: Montage, own: Sensors, usable: np.ndarray, n_dimensions: int, source: str
) -> Matching:
    places = own.places(n_dimensions)
    sources = np.flatnonzero(usable & (places != NO_POSITION).all(axis=1))
    wanted = np.flatnonzero((montage.positions != NO_POSITION).all(axis=1))
    weights = np.zeros((len(montage.names), len(usable)))
    interpolated = _interpolation(places[sources], montage.positions[wanted], source)
    weights[np.ix_(wanted, sources)] = interpolated
    return _matching(weights, montage, 0, len(wanted), by_name=False)


def _matching(
    weights: np.ndarray, montage: Montage, n_matched: int, n_interpolated: int, by_name: bool
) -> Matching:
    masked: np.ndarray = ~np.any(weights, axis=1)
    positions = np.where(masked[:, None], np.float32(NO_POSITION), montage.positions)
    n_masked = int(masked.sum())
    return Matching(
        weights.astype(np.float32), positions, n_matched, n_interpolated, n_masked, by_name
    )


def _interpolation(places: np.ndarray, wanted: np.ndarray, source: str) -> np.ndarray:
    """[C, n] weights of sensors at `places` [n, D] for those at the `wanted` [C, D]."""
    if len(places) < FEWEST:
        raise DataError(
            f"{source}: {len(places)} of its sensors have a name that the model knows, or a place; "
            f"at least {FEWEST} are needed. Rename them as in training (raw.rename_channels), or "
            "give positions (raw.set_montage)."
        )
    surface = scipy.interpolate.RBFInterpolator(
        places.astype(float), np.eye(len(places)), kernel="linear", smoothing=SMOOTHING
    )
    return np.asarray(surface(wanted.astype(float)))
