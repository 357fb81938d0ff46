"""The same metric has the same name, and the same values, wherever it is shown."""

import json
import re
import subprocess
import sys

import pytest
from browser import browse

from bm.tracking import TensorBoard, WeightsAndBiases, flat_metrics

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
    from scripts.experiments import find_grid

    first = find_grid("trial").signatures[0]
    command = [sys.executable, "-m", "scripts.run_grid", "trial", f"only={first}"]
    subprocess.run(
        [*command, "tensorboard=true", "wandb.use_wandb=true"],
        cwd=tmp_path, env={**python_env, "WANDB_MODE": "offline"}, check=True,
    )  # fmt: skip
    folder = tmp_path / "outputs" / "xps" / first
    history = json.loads((folder / "history.json").read_text())
    assert [loss for _, loss in curves(folder)["valid/loss"]] == pytest.approx(
        [epoch["valid"]["loss"] for epoch in history]
    )
    assert list(folder.glob(f"wandb/offline-run-*-{first}"))
    load = (
        "import json, os; os.environ['DORA_PACKAGE'] = 'bm'; from dora import hiplot; "
        f"page = hiplot.load('{first} explorer=ClipHiPlot'); "
        "print(json.dumps([point.values for point in page.datapoints]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", load],
        cwd=tmp_path, env=python_env, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    points = json.loads(printed.splitlines()[-1])
    assert [point["valid/loss"] for point in points] == pytest.approx(
        [epoch["valid"]["loss"] for epoch in history]
    )
    assert {"train/loss", "epoch", "sig"} <= set(points[0])
