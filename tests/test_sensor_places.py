"""Places of sensors in 3-D: head coordinates, scaled alike for every recording."""

import mne
import numpy as np
import pytest
from helpers import SmallRecording, make_splits, tell_story
from mne.io.constants import FIFF

from bm.core.layout import NO_POSITION
from bm.recordings.sensors import Sensors


def test_places_in_space_are_metres_in_a_cube_around_the_head():
    metres = np.array([[0.0, 0.0, 0.0], [0.2, -0.1, 0.04], [np.nan, np.nan, np.nan], [0, 0, 1]])
    sensors = Sensors(list("abcd"), np.full((4, 2), 0.25, dtype=np.float32), metres)
    expected = [[0.5, 0.5, 0.5], [1.0, 0.25, 0.6], [NO_POSITION] * 3, [0.5, 0.5, 1.0]]
    np.testing.assert_allclose(sensors.places(3), expected, rtol=1e-6)
    assert sensors.places(2) is sensors.positions
    with pytest.raises(ValueError, match="dset.sensor_dimensions=4: choose 2 or 3"):
        sensors.places(4)


@pytest.mark.parametrize("system", ["kit", "ctf"])
def test_real_helmets_fit_into_the_cube(shared_data, system):
    path = min((shared_data / system).glob({"kit": "*.con", "ctf": "*.ds"}[system]))
    raw = {"kit": mne.io.read_raw_kit, "ctf": mne.io.read_raw_ctf}[system](path)
    info = mne.pick_info(raw.info, mne.pick_types(raw.info, meg=True, ref_meg=False))
    places = Sensors.from_info(info, system).places(3)
    assert 0 < places.min() < places.max() < 1  # nothing was clipped
    assert (np.ptp(places, axis=0) > 0.3).all()
    gaps = np.linalg.norm(places[:, None] - places, axis=-1) + 10 * np.eye(len(places))
    assert gaps.min(axis=1).max() < 0.2  # each has a neighbour within 8 cm


def test_sensors_of_a_helmet_are_placed_where_the_head_was():
    info = mne.create_info(["MEG1", "MEG2", "EEG1"], 100.0, ["mag", "mag", "eeg"])
    for channel, place in zip(info["chs"], ([0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]), strict=True):
        channel["loc"][:3] = place
    in_device = Sensors.from_info(info, "rec 1").positions_3d
    np.testing.assert_allclose(in_device, 0.1 * np.eye(3), atol=1e-9)
    rotation = np.array([[0.0, -1, 0, 0.01], [1, 0, 0, 0], [0, 0, 1, -0.02], [0, 0, 0, 1]])
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", rotation)
    assert info["chs"][0]["coord_frame"] == FIFF.FIFFV_COORD_DEVICE
    in_head = Sensors.from_info(info, "rec 1").positions_3d
    expected = [[0.01, 0.1, -0.02], [-0.09, 0, -0.02], [0, 0, 0.1]]  # EEG is in the head already
    np.testing.assert_allclose(in_head, expected, atol=1e-7)


@pytest.mark.parametrize("n_dimensions", [2, 3])
def test_layouts_of_segments_have_as_many_dimensions_as_asked_for(tmp_path, cache, n_dimensions):
    recording = SmallRecording(cache, tell_story(tmp_path), n_sensors=5)
    splits = make_splits([recording], cache, n_dimensions=n_dimensions)
    layouts = splits.layouts
    assert layouts.shape == (1, 5, n_dimensions)
    places = splits.prepared[0].signal.sensors.places(n_dimensions)
    np.testing.assert_array_equal(layouts[0], places)
    assert len(np.unique(places, axis=0)) == 5
