"""The page about models: its encoder runs and learns, and what it says is so."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import make_layouts

from bm.build_models import build_models
from bm.config import Config, default_leaves, from_hydra
from bm.losses import ClipLoss
from bm.train import main


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.fixture
def configs(page, tmp_path, monkeypatch) -> list[Config]:
    """Configurations of the commands; the encoder of the page is in the file that it says."""
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (name,) = re.findall(r"^.*`(my_\w+\.py)`:$", page, flags=re.MULTILINE)
    (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    commands = re.findall(r"^dora run (.*)$", page, flags=re.MULTILINE)
    return [from_hydra(main.get_xp(command.split()).cfg) for command in commands]


def test_encoder_of_the_page_learns(configs):
    own, of_braindecode = configs
    assert of_braindecode.encoder.target == "braindecode.models.EEGNet"
    assert own.encoder.params == {"hidden": 64}
    model = build_models(own, n_sensors=9, n_features=4, n_subjects=2)["meg"]
    assert model.encoder.gru.hidden_size == 64
    generator = torch.Generator().manual_seed(0)
    meg, target = (torch.randn(8, n, 30, generator=generator) for n in (9, 4))
    inputs = meg, torch.arange(8) % 2, make_layouts(2, 9), torch.arange(8) // 4
    optimizer, loss_of, losses = torch.optim.Adam(model.parameters(), 3e-3), ClipLoss(), []
    for _ in range(30):
        loss = loss_of(model(*inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_numbers_of_parameters_are_as_the_page_says(page):
    rows = re.findall(r"^\| [\w ]+ \| (\d+) \| (\d+) \| ([\d,]+) \|$", page, flags=re.MULTILINE)
    assert len(rows) == 4
    config = from_hydra(main.get_xp([]).cfg)
    for n_sensors, n_subjects, number in rows:
        model = build_models(config, int(n_sensors), 1024, int(n_subjects))["meg"]
        assert f"{sum(one.numel() for one in model.parameters()):,}" == number


def test_options_of_the_page_exist_and_are_all_there(page):
    table = page.partition("## Its options")[2].partition("Clamping")[0]
    cells = re.findall(r"^\| (`.*?`) \|", table, flags=re.MULTILINE)[1:]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    leaves = {key.removeprefix("simpleconv.") for key in default_leaves() if "simpleconv." in key}
    assert named <= leaves
    assert {"merger", "scale", "dual_path", "n_fft", "subject_dim"} <= named


@pytest.mark.parametrize(
    ("override", "build"),
    [
        ("dset.sensor_dimensions=3", {"simpleconv.merger_pos_dim": 250}),
        ("simpleconv.transformer=2", {}),
        ("simpleconv.unseen_subject_mean=true", {}),
        ("preset=compact", {}),
    ],
)
def test_what_goes_beyond_the_paper_is_built(page, override: str, build: dict[str, Any]):
    assert f"| `{override}` |" in page
    argv = [override, *(f"{key}={value}" for key, value in build.items())]
    config = from_hydra(main.get_xp(argv).cfg)
    model = build_models(config, n_sensors=20, n_features=8, n_subjects=3)["meg"].eval()
    layouts = make_layouts(1, 20, n_axes=config.dset.sensor_dimensions)
    subject = torch.tensor([-1 if "unseen" in override else 0])
    output = model(torch.randn(1, 20, 100), subject, layouts, torch.zeros(1, dtype=torch.long))
    assert output.shape == (1, 8, 100)
