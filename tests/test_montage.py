"""Sensors of a new recording are brought into the order of those that a model was trained on."""

import mne
import numpy as np
import pytest

from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.recordings import Sensors
from bm.recordings.montage import Montage, collect_montages, match_sensors

INFO = mne.create_info(mne.channels.make_standard_montage("easycap-M1").ch_names[:60], 100, "eeg")


def sensors_of(names: list[str] | None = None) -> Sensors:
    """Electrodes of the cap, or some of them."""
    info = INFO.copy()
    with info._unlock():
        info.set_montage("easycap-M1")
    chosen = info if names is None else mne.pick_info(info, [info.ch_names.index(n) for n in names])
    return Sensors.from_info(chosen, "cap")


def field(sensors: Sensors) -> np.ndarray:
    """[200, C] smooth fields: sources of some centimetres' depth at random places."""
    generator = np.random.default_rng(0)
    sources = generator.normal(size=(200, 3))
    sources *= 0.05 / np.linalg.norm(sources, axis=1, keepdims=True)
    distance = np.linalg.norm(sources[:, None] - sensors.positions_3d, axis=2)
    return 1 / distance


@pytest.fixture(scope="module")
def cap() -> Sensors:
    return sensors_of()


@pytest.fixture(scope="module")
def montage(cap: Sensors) -> Montage:
    return Montage(cap.names, cap.positions)


def test_order_and_ways_to_write_names_do_not_matter(cap, montage):
    order = np.random.default_rng(1).permutation(60)
    own = Sensors(
        [f"EEG {cap.names[k].upper()}-Ref" for k in order],
        cap.positions[order],
        cap.positions_3d[order],
    )
    found = match_sensors([montage], own, np.ones(60, bool), 2, "new")
    assert (found.n_matched, found.n_interpolated, found.n_masked) == (60, 0, 0)
    values = field(cap)
    np.testing.assert_allclose(values[:, order] @ found.weights.T, values, rtol=1e-6)


def test_names_that_would_be_alike_are_not_guessed(cap, montage):
    names = ["Fp1-F3", "Fp1-F7", *cap.names[2:]]  # bipolar derivations
    assert {"Fp1", "Fp2"} <= set(montage.names)
    own = Sensors(names, cap.positions, cap.positions_3d)
    found = match_sensors([montage], own, np.ones(60, bool), 2, "new")
    assert found.n_interpolated == 2


@pytest.mark.parametrize("n_dimensions", [2, 3])
def test_missing_sensors_are_told_from_their_neighbours(cap, n_dimensions):
    montage = Montage(cap.names, cap.places(n_dimensions))
    kept = [name for k, name in enumerate(cap.names) if k % 5]
    own = sensors_of(kept)
    found = match_sensors([montage], own, np.ones(48, bool), n_dimensions, "new")
    assert (found.n_matched, found.n_interpolated) == (48, 12)
    missing = [k for k in range(60) if k % 5 == 0]
    told, true = (field(own) @ found.weights.T)[:, missing], field(cap)[:, missing]
    correlations = [np.corrcoef(told[:, k], true[:, k])[0, 1] for k in range(12)]
    assert np.median(correlations) > 0.95
    assert min(correlations) > 0.75


def test_other_names_are_matched_by_place(cap, montage):
    kept = [name for k, name in enumerate(cap.names) if k % 2]
    own = sensors_of(kept)
    renamed = Sensors([f"A{k}" for k in range(30)], own.positions, own.positions_3d)
    found = match_sensors([montage], renamed, np.ones(30, bool), 2, "new")
    assert (found.n_matched, found.n_interpolated, found.by_name) == (0, 60, False)
    told, true = field(own) @ found.weights.T, field(cap)
    correlations = [np.corrcoef(told[:, k], true[:, k])[0, 1] for k in range(60)]
    assert np.median(correlations) > 0.9


def test_bad_sensors_are_masked_and_nothing_is_told_from_them(cap, montage):
    usable = np.ones(60, bool)
    usable[7] = False
    found = match_sensors([montage], cap, usable, 2, "new")
    assert (found.n_matched, found.n_masked) == (59, 1)
    assert (found.positions[7] == np.float32(NO_POSITION)).all()
    assert not found.weights[:, 7].any()


def test_recording_without_names_or_places_is_refused(cap, montage):
    nowhere = Sensors(
        [f"X{k}" for k in range(60)], np.full((60, 2), NO_POSITION), np.full((60, 3), np.nan)
    )
    with pytest.raises(DataError, match=r"0 of its sensors.*rename_channels.*set_montage"):
        match_sensors([montage], nowhere, np.ones(60, bool), 2, "new")


def test_montages_are_those_of_most_recordings_first_and_complete(cap):
    few = sensors_of(cap.names[:8])
    bad = np.zeros(60, bool)
    bad[3] = True
    first, second = collect_montages([few, cap.masked(bad), cap], 2)
    assert first.names == cap.names
    np.testing.assert_array_equal(first.positions, cap.positions)  # masked in one, known in another
    assert second.names == few.names
    best = match_sensors([first, second], few, np.ones(8, bool), 2, "new")
    assert (len(best.weights), best.n_interpolated) == (8, 0)
    again = Montage.from_dict(first.to_dict())
    assert again.names == first.names
    np.testing.assert_array_equal(again.positions, first.positions)
