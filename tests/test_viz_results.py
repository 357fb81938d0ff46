"""Pictures of results show the numbers that they were given."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from bm import viz
from bm.core.layout import NO_POSITION
from bm.evaluation.course import WordCourse

MAIN = pd.DataFrame(
    {
        "study": ["A", "A", "B", "B"],
        "method": ["mel", "wav2vec 2.0", "mel", "wav2vec 2.0"],
        "accuracy": [0.2, 0.6, 0.1, np.nan],
        "chance": [0.01, 0.01, 0.05, 0.05],
        "deviation": [0.01, 0.02, np.nan, np.nan],
        "paper": [0.25, 0.7, np.nan, np.nan],
    }
)


def written(figure: Figure) -> str:
    found = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return " ".join(found)


def lines_of(figure: Figure, colour: str) -> list[np.ndarray]:
    lines = [line for line in figure.axes[0].lines if line.get_color() == colour]
    return [line.get_xydata() for line in lines if len(line.get_xydata())]


def test_bars_are_accuracies_in_percent_with_chance_and_the_paper() -> None:
    figure = viz.plot_accuracies(MAIN)
    axes = figure.axes[0]
    assert [patch.get_height() for patch in axes.patches[:2]] == pytest.approx([20, 10])
    assert axes.patches[2].get_height() == pytest.approx(60)
    chance = [part for part in axes.collections if isinstance(part, LineCollection)]
    levels = {round(path[0, 1], 6) for part in chance for path in part.get_segments() if path.size}
    assert {1.0, 5.0} <= levels
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A", "B"]
    assert "chance" in written(figure)
    assert "paper" in written(figure)
    assert "paper" not in written(viz.plot_accuracies(MAIN.drop(columns="paper")))


def test_variants_are_sorted_by_their_mean_change() -> None:
    table = pd.DataFrame(
        {
            "variant": ["no clamp", "no clamp", "ReLU", "ReLU"],
            "study": ["A", "B", "A", "B"],
            "difference": [-0.6, -0.2, -0.01, -0.03],
            "paper": [-0.336, -0.336, -0.014, -0.014],
        }
    )
    axes = viz.plot_ablation(table).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ReLU", "no clamp"]
    assert [patch.get_width() for patch in axes.patches] == pytest.approx([-2, -40])
    one_study = next(line for line in axes.lines if line.get_label() == "B").get_xydata()
    assert {tuple(point) for point in one_study.round(6)} == {(-20.0, 1.0), (-3.0, 0.0)}


def test_line_over_numbers_of_subjects_goes_through_the_means_of_seeds() -> None:
    table = pd.DataFrame(
        {"n_subjects": [3, 3, 6], "accuracy": [0.1, 0.3, 0.5], "chance": [0.01, 0.01, 0.01]}
    )
    axes = viz.plot_accuracy_by_subjects(table).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[3, 20], [6, 50]])


def test_lags_are_drawn_in_order() -> None:
    table = pd.DataFrame(
        {"lag": [1.0, -1.0, 0.0], "k": 10, "accuracy": [0.1, 0.2, 0.9], "chance": 0.05}
    )
    curve = viz.plot_lags(table).axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(curve, [[-1, 20], [0, 90], [1, 10]])


def test_sensor_map_is_brightest_at_the_sensor_with_the_highest_value() -> None:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    positions = 0.5 + 0.4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centre, nowhere = [[0.5, 0.5], [0.6, 0.45]], [[NO_POSITION] * 2]
    positions = np.concatenate([positions, positions[:1], centre, nowhere])
    values = np.zeros(16)
    values[3], values[0], values[12], values[15] = 5.0, 1.0, 3.0, 99.0
    figure = viz.plot_sensor_map(positions, values, "attention", "× mean")
    image = figure.axes[0].images[0]
    data = np.ma.filled(image.get_array().astype(float), -np.inf)
    row, column = np.unravel_index(np.argmax(data), data.shape)
    left, right, bottom, top = image.get_extent()
    x = left + (column + 0.5) / data.shape[1] * (right - left)
    y = bottom + (row + 0.5) / data.shape[0] * (top - bottom)
    assert np.hypot(x, y - 0.92) < 0.3  # sensor 3 stands at the front
    assert image.get_clim() == (0.0, 5.0)
    assert viz.plot_sensor_map(positions, -values, "", "").axes[0].images[0].get_clim() == (-5, 5)
    with pytest.raises(ValueError, match="3 sensors with a place, not 2"):
        viz.plot_sensor_map(positions[:2], values[:2])
    with pytest.raises(ValueError, match="line or a circle"):
        viz.plot_sensor_map(positions[:12], values[:12])
    with pytest.raises(ValueError, match="2 values for 16 sensors"):
        viz.plot_sensor_map(positions, values[:2])


def test_course_of_words_shows_each_word_and_its_onset() -> None:
    course = WordCourse(
        ["the", "bird"], np.array([0.0, 0.4]), np.array([-0.2, 0.0, 0.2, 0.4]),
        np.arange(8).reshape(2, 4) / 10, np.array([0.02, 0.04]),
    )  # fmt: skip
    figure = viz.plot_word_course(course)
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), course.probabilities)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["the", "bird"]
    (marks,) = [part for part in axes.collections if isinstance(part, LineCollection)]
    assert [path[0, 0] for path in marks.get_segments()] == [0.0, 0.4]
    assert "chance 3.0 %" in figure.axes[1].get_ylabel()


def test_knowledge_shows_a_dot_for_each_subject() -> None:
    table = pd.DataFrame(
        {"feature": ["a", "a", "b"], "subject": ["s1", "s2", "s1"], "r": [0.1, 0.3, -0.1]}
    )
    axes = viz.plot_knowledge(table).axes[0]
    assert axes.lines[0].get_ydata().tolist() == [0.1, 0.3]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


@pytest.mark.parametrize(
    "draw",
    [viz.plot_accuracies, viz.plot_ablation, viz.plot_accuracy_by_subjects, viz.plot_knowledge],
)
def test_tables_that_cannot_be_drawn_are_refused(draw) -> None:
    with pytest.raises(ValueError, match="needs a column"):
        draw(pd.DataFrame({"nothing": [1]}))
    columns = "study method variant accuracy chance difference n_subjects feature subject r"
    with pytest.raises(ValueError, match="no rows"):
        draw(pd.DataFrame(columns=columns.split()))


def test_drawing_results_leaves_no_trace() -> None:
    before = dict(matplotlib.rcParams)
    viz.plot_accuracies(MAIN)
    positions = np.random.default_rng(0).uniform(size=(8, 2))
    viz.plot_sensor_map(positions, np.ones(8))
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
