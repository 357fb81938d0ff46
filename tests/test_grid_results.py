"""Tables of grids: experiments are told apart, collected as far as they are, and compared."""

import importlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_grid
from scipy.stats import wilcoxon

from bm.checkpoint import CHECKPOINT, DONE
from bm.evaluation.statistics import holm
from bm.published.results import STUDIES, published_results
from bm.train import main as experiment
from scripts.experiments import Grid, find_grid
from scripts.grid_results import GridResults, collect, name_rows
from scripts.grid_tables import (
    ALL,
    differences,
    export,
    paper_accuracies,
    paper_differences,
    summarise,
    wide,
    with_paper,
)
from scripts.options import UsageError

REGRESSION = "mel, regression"


@pytest.fixture(scope="module")
def tiny() -> Grid:
    return find_grid("tiny_grid")


@pytest.fixture(scope="module")
def main_table() -> Iterator[Grid]:
    """Table 2, as far as one seed and one study go."""
    module = importlib.import_module("bm.grids.nmi.main_table")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SEEDS", (2036,))
        patch.setattr(module, "STUDIES", ("broderick2019",))
        yield find_grid("nmi.main_table")


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Where the experiments of these tests are."""
    monkeypatch.setattr(experiment.dora, "dir", tmp_path)
    return tmp_path


def folder_of(xp) -> Path:
    folder = Path(experiment.dora.dir) / "xps" / xp.sig
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_history(xp, accuracy: float, k: int = 10) -> None:
    test = {f"segment_top{k}": accuracy, f"chance_top{k}": 0.1, "n_candidates": 100}
    history = [{"test": {**test, f"segment_top{k}": 0.0}}, {"test": test}, {"train": {"loss": 1}}]
    (folder_of(xp) / "history.json").write_text(json.dumps(history))


def write_evaluation(xp, accuracies: dict[str, float]) -> None:
    folder = folder_of(xp) / "evaluation"
    folder.mkdir(exist_ok=True)
    everyone = {"all": np.mean(list(accuracies.values()))}
    rows = [
        {"subject": name, "k": 10, "accuracy": share, "chance": 0.1, "n_candidates": 100}
        for name, share in {**everyone, **accuracies}.items()
    ]
    pd.DataFrame(rows).to_csv(folder / "acc.csv", index=False)


# Grids


def test_a_grid_outside_of_bm_is_found_by_its_module(tiny):
    assert tiny.explorer is tiny_grid.explorer
    assert tiny.rows == tiny_grid.ROWS
    assert len(tiny.experiments) == 4


@pytest.mark.parametrize("name", ["tiny_grit", "json", "no_package.grid", ".trial"])
def test_what_is_no_grid_is_refused(name):
    with pytest.raises(UsageError, match=f"{name!r}"):
        find_grid(name)


def test_each_experiment_finds_its_row(main_table, monkeypatch):
    """The judgement of the regression belongs to its row."""
    module = importlib.import_module("bm.grids.nmi.ablation_final")
    monkeypatch.setattr(module, "SEEDS", (2036,))
    monkeypatch.setattr(module, "STUDIES", ("brennan2019",))
    for grid, judged in ((find_grid("nmi.ablation_final"), {}), (main_table, {REGRESSION: 2})):
        found = name_rows(grid.experiments, grid.rows)
        assert pd.Series(found).value_counts().to_dict() == {
            **dict.fromkeys(grid.rows, 1),
            **judged,
        }
        for row, options in grid.rows.items():
            first = next(xp for xp in grid.experiments if found[xp.sig] == row)
            assert set(experiment.value_to_argv(dict(options))) <= set(first.argv)


def test_experiments_without_a_row_are_called_by_what_is_theirs(tiny):
    assert set(name_rows(tiny.experiments, {}).values()) == {
        "reference",
        "simpleconv.subject_layers=false",
    }
    demo = find_grid("demo")
    *others, child = name_rows(demo.experiments, {}).values()
    one_seed = ["reference", "simpleconv.subject_layers=false", "norm.max_scale=1000000000000.0"]
    assert others == [*one_seed, *one_seed, 'dset.control="noise"', 'dset.control="shuffled"']
    assert child == "after reference, optim.epochs=1"


# What was found


def test_accuracies_are_those_of_the_evaluation_else_of_the_last_test(tiny, outputs):
    first, second, third, fourth = tiny.experiments
    write_history(first, 0.5)
    write_evaluation(first, {"fake/a": 0.2, "fake/b": 0.4})
    write_history(second, 0.7)
    (folder_of(second) / CHECKPOINT).touch()
    (folder_of(first) / DONE).touch()
    results = collect(tiny, keys=["optim.lr", "dset.features"])
    assert results.experiments["state"].tolist() == ["done", "unfinished", "missing", "missing"]
    assert results.missing == [third.sig, fourth.sig]
    assert results.experiments["optim.lr"].tolist() == [3e-3] * 4
    assert results.experiments["dset.features"].tolist() == ["MelSpectrum"] * 4
    shares = results.accuracies.set_index(["sig", "subject"])["accuracy"].to_dict()
    assert shares == {
        (first.sig, "all"): pytest.approx(0.3),
        (first.sig, "fake/a"): 0.2,
        (first.sig, "fake/b"): 0.4,
        (second.sig, "all"): 0.7,
    }
    assert str(results) == "tiny_grid: 4 experiments (2 missing, 1 done, 1 unfinished)"


def test_an_evaluation_of_older_weights_is_not_used(tiny, outputs, caplog):
    first = tiny.experiments[0]
    write_history(first, 0.5)
    write_evaluation(first, {"fake/a": 0.2})
    (folder_of(first) / CHECKPOINT).touch()
    table = folder_of(first) / "evaluation" / "acc.csv"
    os.utime(table, (table.stat().st_atime, table.stat().st_mtime - 100))
    assert collect(tiny).accuracies["accuracy"].tolist() == [0.5]
    assert f"{table} is older than the checkpoint" in caplog.text


def test_an_unknown_key_is_named(tiny, outputs):
    with pytest.raises(ValueError, match=r"'optim\.rate' isn't a key"):
        collect(tiny, keys=["optim.rate"])


def test_a_judgement_takes_the_place_of_its_parent(main_table, outputs):
    parent, child = main_table.experiments[-2:]
    write_history(parent, 0.05)
    assert summarise(collect(main_table)).set_index("row")["mean"][REGRESSION] == 5
    write_history(child, 0.06)
    results = collect(main_table)
    assert results.accuracies["sig"].tolist() == [child.sig]
    assert parent.sig not in results.missing
    table = summarise(results).set_index("row")
    assert table["mean"][REGRESSION] == 6
    assert table["n_planned"].tolist() == [1] * 5


# Tables


def make_results(accuracies: dict[tuple[str, str, int], dict[str, float]]) -> GridResults:
    """Results of experiments (row, study, seed) by the shares of their subjects."""
    experiments, parts = [], []
    for number, ((row, study, seed), shares) in enumerate(accuracies.items()):
        sig = f"sig{number}"
        experiments.append({"sig": sig, "row": row, "study": study, "seed": seed, "parent": None})
        if shares:
            named = {f"{study}/{name}": share for name, share in shares.items()}
            everyone = {"all": float(np.mean(list(shares.values())))}
            columns = {"sig": sig, "k": 10, "chance": 0.1, "n_candidates": 100}
            parts += [
                {**columns, "subject": name, "accuracy": share}
                for name, share in {**everyone, **named}.items()
            ]
    return GridResults("g", pd.DataFrame(experiments).set_index("sig"), pd.DataFrame(parts))


@pytest.fixture
def results() -> GridResults:
    """Two rows in two studies, of 6 and 3 subjects; a seed of one row is missing."""
    rng = np.random.default_rng(0)
    found = {}
    for seed in (1, 2):
        for study, n in (("gwilliams2022", 6), ("brennan2019", 3)):
            reference = {f"s{number}": rng.uniform(0.5, 0.7) for number in range(n)}
            worse = {name: share - rng.uniform(0.1, 0.2) for name, share in reference.items()}
            found["reference", study, seed] = reference
            found["no GLU", study, seed] = worse
    found["no GLU", "brennan2019", 2] = {}
    return make_results(found)


def test_mean_and_deviation_are_over_seeds(results):
    table = summarise(results).set_index(["row", "study"])
    shares = results.accuracies.query("subject == 'all'").set_index("sig")["accuracy"]
    both = 100 * shares[["sig0", "sig4"]]
    line = table.loc["reference", "gwilliams2022"]
    assert line["mean"] == pytest.approx(both.mean())
    assert line["deviation"] == pytest.approx(abs(both.diff().iloc[1]) / np.sqrt(2))
    assert (line["n_seeds"], line["n_planned"], line["chance"]) == (2, 2, 10)
    line = table.loc["no GLU", "brennan2019"]
    assert np.isnan(line["deviation"])
    assert (line["n_seeds"], line["n_planned"]) == (1, 2)


def test_differences_pair_subjects_and_correct_for_the_rows(results):
    subjects = results.accuracies.query("subject != 'all'")
    shares = subjects.merge(results.experiments, on="sig").pivot_table(
        "accuracy", ["study", "subject"], "row"
    )
    table = differences(results).set_index("study")
    change = shares["no GLU"] - shares["reference"]
    for study, n in (("gwilliams2022", 6), ("brennan2019", 3), (ALL, 9)):
        own = change if study == ALL else change[study]
        assert table["n_subjects"][study] == n
        assert table["p"][study] == pytest.approx(wilcoxon(own).pvalue)
        assert table["p_floor"][study] == 2.0 ** (1 - n)
    assert table["difference"]["gwilliams2022"] == pytest.approx(
        100 * change["gwilliams2022"].mean()
    )
    studies = table["difference"][["gwilliams2022", "brennan2019"]]
    assert table["difference"][ALL] == pytest.approx(studies.mean())
    copied = results.experiments.replace({"row": {"reference": "same"}})
    copied.index = copied.index + "b"
    twice = results.accuracies.assign(sig=results.accuracies["sig"] + "b")
    more = GridResults(
        "g",
        pd.concat([results.experiments, copied[copied["row"] == "same"]]),
        pd.concat([results.accuracies, twice]),
    )
    table = differences(more).query("study == 'gwilliams2022'").set_index("row")
    assert table["p"].to_dict() == {"no GLU": 0.03125, "same": 1.0}
    assert table["p_holm"].tolist() == holm(table["p"].tolist())
    assert table["p_holm"]["no GLU"] == 0.0625
    with pytest.raises(ValueError, match="no row 'base' in g: reference, no GLU"):
        differences(results, "base")


def test_wide_table_has_the_paper_beside_ours_and_says_what_is_missing(results, tmp_path):
    table = with_paper(summarise(results), paper_accuracies("ablation"))
    shown = wide(table)
    assert shown.columns.get_level_values(0).unique().tolist() == [
        "Brennan", "Broderick", "Gwilliams", "Schoffelen",
    ]  # fmt: skip
    assert len(shown) == 12
    assert shown.loc["no GLU", ("Gwilliams", "paper")].item() == "66.3"
    assert shown.loc["no GLU", ("Broderick", "bm")].item() == "–"
    assert re.fullmatch(r"\d\d\.\d \(1 of 2\)", shown.loc["no GLU", ("Brennan", "bm")].item())
    assert re.fullmatch(r"\d\d\.\d ± \d\.\d", shown.loc["reference", ("Gwilliams", "bm")].item())
    csv, tex = export(table, shown, tmp_path / "new", "ablation")
    pd.testing.assert_frame_equal(pd.read_csv(csv), table, check_dtype=False)
    text = tex.read_text(encoding="utf-8")
    assert text.startswith("\\begin{tabular}")
    assert text.count("\\\\\n") == 3 + 12
    assert "67.3" in text


def test_wide_table_of_differences_shows_corrected_p(results):
    table = with_paper(differences(results), paper_differences())
    shown = wide(table, value="difference")
    text = shown.loc["no GLU", ("Gwilliams", "bm")].item()
    assert re.fullmatch(r"-1\d\.\d \(p = 0\.031\)", text)
    assert shown.loc["no clamp", ("Schoffelen", "paper")].item() == "-65.8"
    assert shown.loc["no clamp", (ALL, "paper")].item() == "-33.6"
    assert shown.columns.get_level_values(0)[-1] == ALL


def test_numbers_in_a_header_are_sorted_by_size():
    lines = [
        {"lr": lr, "study": "brennan2019", "batch": batch, "mean": batch + lr}
        for lr in (3e-4, 1e-4)
        for batch in (256, 32)
    ]
    shown = wide(pd.DataFrame(lines), ["lr"], ["study", "batch"])
    assert shown.columns.get_level_values("batch").tolist() == [32, 256]
    assert shown.index.get_level_values("lr").tolist() == [3e-4, 1e-4]


# The paper's figures


def test_published_figures_are_those_of_the_readme_and_of_the_grids(root):
    """One data file; the tables that people read are the same."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    main = published_results("main").query("measure == 'top10'")
    for row, group in main.groupby("row", sort=False):
        by_study = group.set_index("study").loc[list(STUDIES)]
        cells = [f"{one.value} ± {one.deviation}" for one in by_study.itertuples()]
        assert f"| {' | '.join(cells)} |" in readme, row
    module = importlib.import_module("bm.grids.nmi.ablation_final")
    published = published_results("ablation")
    order = ["audio_mous", "gwilliams2022", "broderick2019", "brennan2019", "mean"]
    for row, group in published.groupby("row"):
        assert row in module.ROWS
        values = group.set_index("study")["value"].loc[order].tolist()
        numbers = re.search(rf"^{re.escape(row)} +(.*)$", module.__doc__, re.MULTILINE)[1].split()
        assert [float(number) for number in numbers] == values, row
    main_rows = importlib.import_module("bm.grids.nmi.main_table").ROWS
    assert set(main["row"]) == set(main_rows)


def test_mean_changes_of_the_published_ablation_are_those_of_its_studies():
    """Figures were rounded before they were published: they agree to 0.1."""
    table = paper_differences()
    for row, group in table.groupby("row"):
        of_studies = group[group["study"] != ALL]["paper"]
        assert len(of_studies) == 4
        mean = group[group["study"] == ALL]["paper"].item()
        assert of_studies.mean() == pytest.approx(mean, abs=0.11), row


def test_unknown_published_table_is_named():
    with pytest.raises(ValueError, match="datasets"):
        published_results("table4")
