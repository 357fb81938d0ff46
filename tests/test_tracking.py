"""The same metric has the same name, and the same values, wherever it is shown."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest
from browser import browse
from matplotlib.image import imread

from bm.tracking import TensorBoard, WeightsAndBiases, flat_metrics
from scripts.experiments import find_grid

HISTORY = [
    {"train": {"loss": 3.0}, "valid": {"loss": 2.5}},
    {"train": {"loss": 2.0}, "valid": {"loss": 2.25}, "test": {"segment_top10": 0.5}},
    {"train": {"loss": 1.0}, "valid": {"loss": 2.0}},
]
CURVES = {
    "train/loss": [(1, 3.0), (2, 2.0), (3, 1.0)],
    "valid/loss": [(1, 2.5), (2, 2.25), (3, 2.0)],
    "test/segment_top10": [(2, 0.5)],
}


def curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_names_are_stage_and_metric():
    assert flat_metrics(HISTORY[1]) == {
        "train/loss": 2.0, "valid/loss": 2.25, "test/segment_top10": 0.5,
    }  # fmt: skip


def test_tensorboard_shows_the_history_once_however_often_the_run_was_killed(tmp_path):
    first = TensorBoard(tmp_path)
    first(HISTORY[:1])
    first(HISTORY[:2])
    second = TensorBoard(tmp_path)  # after a restart
    second(HISTORY)
    assert curves(tmp_path) == CURVES


def test_tensorboard_draws_the_curves_in_a_browser(tmp_path):
    for name, history in (("first", HISTORY), ("second", HISTORY[:2])):
        TensorBoard(tmp_path / name)(history)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path), "--port=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = next(line.split(" at ")[1].split()[0] for line in server.stderr if " at " in line)
            url += "?tagFilter=loss&smoothing=0#timeseries"
            page = browse(url, tmp_path, "--window-size=1300,900", budget=300_000)
        finally:
            server.kill()
    cards = page.split("<scalar-card-component")[1:]
    assert len(cards) == 2  # train/loss and valid/loss: the filter leaves out test
    for card, last in zip(cards, ({"1", "2"}, {"2", "2.25"}), strict=True):
        assert last <= set(re.sub("<[^>]*>", " ", card).split())
        lines = re.findall(r'<path d="(M[^"]*)" style="[^"]*stroke: rgb', card)
        assert sorted(line.count("L") for line in lines) == [1, 2]  # epochs after the first


def test_wandb_offline_keeps_everything_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = WeightsAndBiases(tmp_path, "1234e567", "speech", "group", {"seed": 1})
    for n_epochs in (1, 2, 3):
        run(HISTORY[:n_epochs])
    assert run._run.id == "1234e567"
    assert (run._run.project, run._run.group) == ("speech", "group")
    assert run._run.summary["train/loss"] == 1.0
    assert run._run.summary["test/segment_top10"] == 0.5
    run._run.finish()
    assert list(tmp_path.glob("wandb/offline-run-*-1234e567/run-1234e567.wandb"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_run_and_hiplot_show_what_is_in_history_json(tmp_path, python_env):
    first = find_grid("demo").signatures[0]
    command = [sys.executable, "-m", "scripts.run_grid", "demo", f"only={first}"]
    subprocess.run(
        [*command, "tensorboard=true", "wandb.use_wandb=true"],
        cwd=tmp_path, env={**python_env, "WANDB_MODE": "offline"}, check=True,
    )  # fmt: skip
    folder = tmp_path / "outputs" / "xps" / first
    history = json.loads((folder / "history.json").read_text())
    losses = [epoch["valid"]["loss"] for epoch in history]
    assert [loss for _, loss in curves(folder)["valid/loss"]] == pytest.approx(losses)
    assert list(folder.glob(f"wandb/offline-run-*-{first}"))

    uri, picture = "demo explorer=ClipHiPlot", tmp_path / "hiplot.png"
    with subprocess.Popen(
        [sys.executable, "-m", "hiplot", "dora.hiplot.load", "--port=0"],
        cwd=tmp_path, env={**python_env, "DORA_PACKAGE": "bm"}, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            url = next(
                line.split(" on ")[1].split()[0] for line in server.stderr if " on http" in line
            )
            with urlopen(f"{url}/data?uri={quote(uri)}") as answer:
                points = [
                    point["values"] for point in json.load(answer)["experiment"]["datapoints"]
                ]
            url = url.replace("127.0.0.1", "localhost") + f"/?hip.load_uri={quote(json.dumps(uri))}"
            size = "--window-size=1300,920"
            page = browse(url, tmp_path, size, budget=60_000, picture=picture)
        finally:
            server.kill()
    assert [point["valid/loss"] for point in points] == pytest.approx(losses)
    shown = set(re.findall(r"label-name[^>]*>([^<]+)<", page))
    assert shown >= {"train/loss", "valid/loss", "epoch"}  # of one experiment the rest is constant
    assert re.search(rf"Selected: <strong[^>]*>{len(losses)}</strong>/<strong", page)
    heights = heights_of_the_curve(picture, len(losses))
    assert np.corrcoef(heights, losses)[0, 1] > 0.99


def heights_of_the_curve(picture: Path, n_points: int) -> np.ndarray:
    """Heights, in pixels, of the one curve at the foot of a HiPlot page of 1300 x 920."""
    plot = imread(picture)[700:836, 62:1280, :3]
    is_drawn = plot.mean(axis=2) < 0.7  # the grid is lighter
    columns = np.flatnonzero(is_drawn.any(axis=0))
    assert len(columns) > 1200  # from the first epoch to the last
    where = np.linspace(columns[1], columns[-2], n_points).round().astype(int)
    return np.array([len(plot) - np.flatnonzero(is_drawn[:, x]).mean() for x in where])
