"""Sensors and spherical head model of the simulated listeners.

Enters: a modality, dipole positions and moments. Leaves: an `mne.Info` with real sensor positions,
and the field each dipole makes at each sensor, computed by MNE's spherical forward model.
"""

from functools import lru_cache

import mne
import numpy as np

from bm.core.messages import check_choice

MODALITIES = {"meg": 102, "eeg": 64}
"""With the sensors that each has."""
ORIGIN = np.array([0.0, 0.0, 0.04])
"""Centre of the head sphere in metres, head coordinates: x right, y to the front, z up."""
HEAD_RADIUS = 0.095
HELMET_RADIUS = 0.12
HELMET_RIM = np.deg2rad(110)
"""Angle between the top of the helmet and its lowest sensors."""


@lru_cache(maxsize=4)
def sensor_info(modality: str, sample_rate: float) -> "mne.Info":
    """Sensors of a simulated recording.

    Parameters
    ----------
    modality : "meg": the 102 magnetometers of MNE's layout "Vectorview-mag", lifted from the plane
        onto a spherical helmet; "eeg": the 64 electrodes of MNE's montage "biosemi64".
    sample_rate : Hz.
    """
    check_choice("modality", modality, MODALITIES)
    if modality == "eeg":
        montage = mne.channels.make_standard_montage("biosemi64", head_size=HEAD_RADIUS)
        info = mne.create_info(montage.ch_names, sample_rate, "eeg", verbose="error")
        return info.set_montage(montage, verbose="error")
    layout = mne.channels.read_layout("Vectorview-mag")
    info = mne.create_info(layout.names, sample_rate, "mag", verbose="error")
    places = layout.pos[:, :2] + layout.pos[:, 2:] / 2
    for channel, (place, *axes) in zip(info["chs"], _helmet(places), strict=True):
        channel["loc"] = np.concatenate([place, *axes])
        channel["coil_type"] = mne.io.constants.FIFF.FIFFV_COIL_VV_MAG_T3
        channel["coord_frame"] = mne.io.constants.FIFF.FIFFV_COORD_DEVICE
    with info._unlock():  # the helmet's coordinates are the head's: nobody moves
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", np.eye(4))
    return info


def dipole_fields(info: "mne.Info", places: np.ndarray) -> np.ndarray:
    """Fields of unit dipoles (1 Am) at the sensors.

    Parameters
    ----------
    info : sensors.
    places : [N, 3] metres, head coordinates; inside the head sphere.

    Returns
    -------
    [N, 3, C] in T or V for a moment along x, y and z; EEG against the average reference.
    """
    sphere = mne.make_sphere_model(r0=ORIGIN, head_radius=HEAD_RADIUS, verbose="error")
    normals = np.tile([0.0, 0.0, 1.0], (len(places), 1))
    space = mne.setup_volume_source_space(
        pos={"rr": places, "nn": normals}, mindist=0.0, verbose="error"
    )
    is_eeg = "eeg" in info.get_channel_types(unique=True)
    forward = mne.make_forward_solution(
        info, None, space, sphere, meg=not is_eeg, eeg=is_eeg, mindist=0.0, verbose="error"
    )
    fields = forward["sol"]["data"].T.reshape(len(places), 3, -1)
    return fields - fields.mean(axis=2, keepdims=True) if is_eeg else fields


def tangential(places: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """[N, 3] unit moments at `places`, along the sphere.

    `angles` [N] turn them from the horizontal, in radians. Radial moments would make no magnetic
    field outside a sphere.
    """
    radial = _unit(places - ORIGIN)
    horizontal = _unit(np.cross(radial, [0.0, 0.0, 1.0]))
    upward = np.cross(radial, horizontal)
    return np.cos(angles)[:, None] * horizontal + np.sin(angles)[:, None] * upward


def _helmet(places: np.ndarray) -> np.ndarray:
    """[C, 4, 3] position, two axes and outward normal of sensors drawn at `places` [C, 2].

    Inverts the azimuthal projection of plane layouts: the distance from the centre becomes the
    angle from the top.
    """
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    flat = (places - middle) / (np.ptp(places, axis=0).max() / 2)
    polar = np.linalg.norm(flat, axis=1) * HELMET_RIM
    azimuth = np.arctan2(flat[:, 1], flat[:, 0])
    normal = np.stack(
        [np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=1
    )
    first = np.stack(
        [np.cos(polar) * np.cos(azimuth), np.cos(polar) * np.sin(azimuth), -np.sin(polar)], axis=1
    )
    return np.stack(
        [ORIGIN + HELMET_RADIUS * normal, first, np.cross(normal, first), normal], axis=1
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
