"""Pictures for checks by eye: what they show, and that drawing leaves no trace."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from helpers import SmallRecording, tell_story
from matplotlib import pyplot
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure

from bm import viz
from bm.core.cache import Cache
from bm.core.layout import NO_POSITION
from bm.evaluation.alignment import Alignment
from bm.evaluation.lags import LagProfile
from bm.recordings import Sensors


@pytest.fixture
def events(tmp_path: Path) -> pd.DataFrame:
    table = tell_story(tmp_path, n_sentences=3)
    block = pd.DataFrame([{"kind": "block", "start": 1.0, "duration": np.inf, "uid": "one"}])
    return pd.concat([table, block], ignore_index=True)


def boxes(figure: Figure) -> list[np.ndarray]:
    """Left and right ends [n, 2] of the boxes of each row."""
    found = [part for part in figure.axes[0].collections if isinstance(part, PolyCollection)]
    ends = [[path.get_extents() for path in part.get_paths()] for part in found]
    return [np.array([[end.x0, end.x1] for end in row]) for row in ends]


def texts(figure: Figure) -> list[str]:
    return [text.get_text().strip() for text in figure.axes[0].texts]


def test_each_kind_has_a_row_and_each_event_a_box_of_its_length(events: pd.DataFrame) -> None:
    figure = viz.plot_events(events, 0.0, 60.0)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["sound", "block", "word"]
    sound, block, words = boxes(figure)
    expected = events[events["kind"] == "word"]
    np.testing.assert_allclose(words[:, 0], expected["start"])
    np.testing.assert_allclose(words[:, 1], expected["start"] + expected["duration"])
    assert block.tolist() == [[1.0, 60.0]]  # it has no end of its own
    assert len(sound) == 1


def test_few_events_are_labelled_and_many_are_not(events: pd.DataFrame) -> None:
    first = events[events["kind"] == "word"]["word"].iloc[:4].tolist()
    figure = viz.plot_events(events, 1.0, 2.0)
    assert texts(figure)[0] == "story.wav"
    assert texts(figure)[2 : 2 + len(first)][:2] == first[:2]
    many = pd.concat([events.assign(start=events["start"] + 30 * index) for index in range(4)])
    assert not set(first) & set(texts(viz.plot_events(many)))


def test_accessor_draws_the_same(events: pd.DataFrame) -> None:
    drawn, expected = events.event.plot(2.0, 5.0), viz.plot_events(events, 2.0, 5.0)
    for one, other in zip(boxes(drawn), boxes(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_drawn_is_said(events: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no event between 900 and 1000 s"):
        viz.plot_events(events, 900.0, 1000.0)
    with pytest.raises(ValueError, match="no event"):
        viz.plot_events(events.iloc[:0])
    with pytest.raises(AttributeError, match="no column 'duration'"):
        _ = events.drop(columns="duration").event


@pytest.fixture
def sensors(cache: Cache, tmp_path: Path) -> Sensors:
    recording = SmallRecording(cache, tell_story(tmp_path, 2), n_sensors=6)
    return Sensors.from_info(recording.raw().info, "test")


def test_masked_sensors_are_crossed_out_where_they_are(sensors: Sensors) -> None:
    masked = sensors.masked(np.array([0, 1, 0, 0, 0, 0], dtype=bool))
    figure = viz.plot_sensors(masked, sensors)
    axes = figure.axes[0]
    (dots,) = [part for part in axes.collections if isinstance(part, PathCollection)]
    np.testing.assert_allclose(dots.get_offsets(), np.delete(sensors.positions, 1, axis=0))
    (cross,) = axes.lines
    np.testing.assert_allclose(cross.get_xydata(), sensors.positions[[1]])
    assert sensors.names[1] in texts(figure)
    assert axes.get_title() == f"5 of 6 sensors; masked: {sensors.names[1]}"


def test_layout_without_any_masked_sensor(sensors: Sensors) -> None:
    figure = viz.plot_sensors(sensors)
    assert figure.axes[0].get_title() == "6 of 6 sensors"
    assert not figure.axes[0].lines


def test_layout_without_any_position(sensors: Sensors) -> None:
    nowhere = sensors.masked(np.ones(6, dtype=bool))
    assert (nowhere.positions == NO_POSITION).all()
    assert "0 of 6" in viz.plot_sensors(nowhere).axes[0].get_title()


def test_sensors_of_another_recording_are_refused(sensors: Sensors) -> None:
    other = Sensors(sensors.names[::-1], sensors.positions, sensors.positions_3d)
    with pytest.raises(ValueError, match="names differ"):
        viz.plot_sensors(sensors, other)


def test_alignment_page_tells_the_verdict_and_shows_the_peak(
    sensors: Sensors, tmp_path: Path
) -> None:
    lags = np.arange(-50, 51) / 100
    generator = np.random.default_rng(0)
    far = generator.uniform(0, 0.01, 4000)
    profile = LagProfile(lags, np.exp(-(((lags + 0.2) / 0.03) ** 2)), far)
    evoked = lags, generator.standard_normal((6, 101))
    alignment = Alignment(
        "study", "r1", "s1", sensors, 120, 60.0, profile, profile, None, None, evoked
    )
    figure = viz.plot_alignment(alignment)
    assert figure.get_suptitle().startswith("study/r1: MISALIGNED\nthe response to the sound")
    curve = figure.axes[0].lines[0].get_xydata()
    assert curve[curve[:, 1].argmax(), 0] == pytest.approx(-200)
    figure.savefig(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_drawing_leaves_no_trace(events: pd.DataFrame) -> None:
    before = dict(matplotlib.rcParams)
    viz.plot_events(events)
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
