"""The ablations of the paper: every row can be trained, and the table says what was found."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bm.build_models import build_models
from bm.config import Config, flatten, from_hydra, to_dict
from bm.grids.ablation_simulated import PAPER, ROWS, SEEDS
from bm.losses import ClipLoss
from bm.train import main as experiment
from scripts import ablation_table as script
from scripts.experiments import find_grid


@cache
def configuration(row: str) -> Config:
    return from_hydra(experiment.get_xp(script.arguments_of(ROWS[row], 2036)).cfg)


def test_grid_has_each_ablation_of_the_paper_with_three_seeds(monkeypatch):
    assert list(PAPER) == [row for row in ROWS if row != "reference"]
    names = SimpleNamespace(get_xp=lambda argv: SimpleNamespace(sig=" ".join(argv)))
    names.value_to_argv = experiment.value_to_argv
    monkeypatch.setattr("scripts.experiments.experiment", names)  # signatures take long
    scheduled = find_grid("ablation_simulated").signatures
    assert len(scheduled) == 12 * 3
    assert set(scheduled) == {
        " ".join(script.arguments_of(row, seed)) for seed in SEEDS for row in ROWS.values()
    }


@pytest.mark.parametrize("row", ROWS)
def test_row_builds_an_encoder_that_learns(row):
    config = configuration(row)
    models = build_models(config, 20, 40, 6)
    generator = torch.Generator().manual_seed(0)
    meg = torch.randn(16, 20, 60, generator=generator)
    target = torch.randn(16, 40, 60, generator=generator)
    layouts, layout = torch.rand(1, 20, 2, generator=generator), torch.zeros(16, dtype=torch.long)
    subjects = torch.arange(16) % 6
    optimizer = torch.optim.Adam(models.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        loss = ClipLoss()(models["meg"](meg, subjects, layouts, layout), target)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in models.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("row", list(PAPER))
def test_row_differs_from_the_reference_in_what_it_names(row):
    leaves, reference = (flatten(to_dict(configuration(one))) for one in (row, "reference"))
    assert {key: leaves[key] for key in leaves if leaves[key] != reference[key]} == ROWS[row]


def test_table_has_mean_spread_and_difference():
    accuracies = {
        row: [0.6 - 0.05 * index + 0.01 * number for number in range(3)]
        for index, row in enumerate(ROWS)
    }
    page = script.write_table(script.Results(accuracies, 0.02, 500, []), 0.995)
    assert "| reference |  | 61.0 ± 1.0 | 60.0, 61.0, 62.0 |  |  |" in page
    assert (
        "| no clamp | `norm.max_scale=1e+12` | 6.0 ± 1.0 | 5.0, 6.0, 7.0 | -55.0 | -33.6 |"
    ) in page
    assert "among 500 candidates" in page
    assert "Chance is 2.0 %. The ceiling, 99.5 %," in page
    assert "paper's: subject embedding, clamp at 100.\n" in page
    assert "| no subject layer | `simpleconv.subject_layers=false` |" in page
    assert "missing" not in page
    accuracies["no clamp"] = [0.05]
    missing = [("no clamp", 2037, "a"), ("no clamp", 2038, "b")]
    page = script.write_table(script.Results(accuracies, 0.02, 500, missing), 0.995)
    assert "| 5.0 | 5.0 | -56.0 | -33.6 |" in page
    assert "2 experiments are missing." in page


def write_history(row: str, seed: int, accuracy: float) -> None:
    folder = Path(experiment.get_xp(script.arguments_of(ROWS[row], seed)).folder)
    folder.mkdir(parents=True)
    test = {"segment_top10": accuracy, "chance_top10": 0.02, "n_candidates": 500}
    history = [{"test": {**test, "segment_top10": 0.01}}, {"test": test}, {"train": {"loss": 1}}]
    (folder / "history.json").write_text(json.dumps(history))


def test_last_tests_are_collected_and_those_missing_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment.dora, "dir", tmp_path)
    rows = {row: ROWS[row] for row in ("reference", "no clamp")}
    monkeypatch.setattr(script, "ROWS", rows)
    monkeypatch.setattr(script, "SEEDS", (2036, 2037))
    write_history("reference", 2036, 0.5)
    write_history("reference", 2037, 0.75)
    signature = experiment.get_xp(script.arguments_of(ROWS["no clamp"], 2037)).sig
    assert script.main([f"out={tmp_path / 'table.md'}"]) == 1
    printed = capsys.readouterr().err
    assert f"{signature} (no clamp, seed 2037) has no test yet." in printed
    assert printed.count("has no test yet") == 2
    assert not (tmp_path / "table.md").exists()
    write_history("no clamp", 2037, 0.25)
    results = script.collect()
    assert results.accuracies == {"reference": [0.5, 0.75], "no clamp": [0.25]}
    assert (results.chance, results.n_candidates) == (0.02, 500)
    assert [entry[:2] for entry in results.missing] == [("no clamp", 2036)]


def test_script_explains_itself(capsys):
    assert script.main(["--help"]) == 0
    assert "dora grid ablation_simulated" in capsys.readouterr().out
    assert script.main(["to=here"]) == 2
    assert "scripts.ablation_table --help" in capsys.readouterr().err
