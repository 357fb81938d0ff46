"""Notebooks: pairs in step, and each executed on a small grid that is trained here."""

import json
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
import pandas as pd
import pytest
from dora import XP
from jupyter_client.manager import KernelManager
from nbformat import NotebookNode
from notebooks import NOTEBOOKS, ROOT, execute, outputs, running_kernel

from bm import play
from bm.build import build_solver
from bm.checkpoint import DONE
from bm.config import from_hydra
from bm.core.messages import DataError
from bm.grids import demo
from bm.solver import Solver
from bm.train import main as experiment
from bm.train import make_publish
from scripts import knowledge
from scripts.dataset_table import describe_datasets, load, vocabulary
from scripts.evaluate import evaluate_solver
from scripts.experiments import Grid, find_grid
from scripts.grid_figures import draw_encoding

pytestmark = [
    pytest.mark.timeout(400),  # the grid is trained first, on a machine that may be busy
    pytest.mark.filterwarnings("ignore:unclosed file .*argv.json:ResourceWarning"),  # Dora's
]

ENCODER = [
    "preset=demo",
    "model=convrnn",
    "convrnn.hidden.meg=16",
    "convrnn.hidden.features=16",
    "convrnn.lstm=1",
    "dset.selections=[fake]",
    "+selections.fake.n_subjects=3",
    "dset.features_params.MelSpectrum.n_mels=16",
    "task.type=encode",
    "task.meg_init=0.5",
    "optim.epochs=1",
    "optim.max_batches=2",
]


def read_pair(path: Path) -> tuple[NotebookNode, NotebookNode]:
    return jupytext.read(path), nbformat.read(path.with_suffix(".ipynb"), as_version=4)


def train(xp: XP) -> Solver:
    """Train an experiment as `dora run` does."""
    xp.folder.mkdir(parents=True)
    (xp.folder / ".argv.json").write_text(json.dumps(xp.argv))
    config = from_hydra(xp.cfg)
    solver = build_solver(config, xp.folder, make_publish(config, xp))
    solver.run()
    (xp.folder / DONE).touch()
    return solver


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    """The grid `demo`: most is missing, and one experiment has no evaluation but its last test."""
    folder = tmp_path_factory.mktemp("grid")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(experiment.dora, "dir", folder / "outputs")
        grid = find_grid("demo")
        for number in (0, 1, 3):  # the reference twice, without the subject layer once
            solver = train(grid.experiments[number])
            if number < 3:
                evaluate_solver(solver)
        yield grid


@pytest.fixture(scope="module")
def kernel(python_env: dict[str, str]) -> Iterator[KernelManager]:
    """One kernel for all notebooks; names are forgotten in between."""
    with running_kernel(python_env) as manager:
        yield manager


# Pairs


def test_there_is_a_notebook_for_each_table_and_the_first_steps():
    names = {path.stem for path in NOTEBOOKS}
    assert {"first_steps", "figures", "other_tables"} <= names
    assert {name.split("_")[0] for name in names} >= {"table1", "table2", "table3"}
    assert names == {path.stem for path in (ROOT / "notebook_templates").glob("*.ipynb")}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_both_files_of_a_pair_hold_the_same_and_no_outputs(path):
    """If not: make notebooks."""
    script, notebook = read_pair(path)
    both = [
        [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in one.cells]
        for one in (script, notebook)
    ]
    assert both[0] == both[1]
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1
    assert notebook.metadata.kernelspec.name == "python3"


# What they show


def test_table_1_counts_what_the_solver_trains_on(grid, kernel):
    notebook = execute(kernel, "table1_datasets", root=str(Path.cwd()), grid="demo")
    table = pd.read_csv("outputs/tables/table1_datasets.csv")
    ours = table[table["study"] == "fake"].set_index("measure")["count"].to_dict()
    splits = load(from_hydra(grid.experiments[0].cfg))
    test = splits.datasets["test"].table
    assert (ours["sensors"], ours["subjects"], ours["hours"]) == (32, 4, 0.4)
    assert ours["test segments"] == len(test[["word_sequence", "word_index"]].drop_duplicates())
    assert ours["test vocabulary"] == len(vocabulary(splits, "test"))
    assert set(test["word"].str.lower()) <= vocabulary(splits, "test")
    train = splits.datasets["train"].table
    assert ours["train segments"] == len(train[["word_sequence", "word_index"]].drop_duplicates())
    assert ours["train segments"] == pytest.approx(len(train) / 4, rel=0.05)
    paper = table[table["study"] == "gwilliams2022"].set_index("measure")["paper"]
    assert paper["hours"] == 56.2
    assert "56.2" in outputs(notebook, "text/html")[0]


def test_datasets_that_are_not_here_are_named(caplog):
    table = describe_datasets(find_grid("nmi.wordlists"))
    assert "audio_mous_wl can't be counted" in caplog.text
    assert table["count"].isna().all()
    assert len(table) == 4 * 7


def test_table_2_shows_ours_and_the_paper(grid, kernel):
    notebook = execute(kernel, "table2_main_results", root=str(Path.cwd()), grid="demo")
    table = pd.read_csv("outputs/tables/table2_main_results.csv")
    ours = table[table["study"] == "fake"].set_index("row")
    evaluated = pd.read_csv(grid.experiments[0].folder / "evaluation" / "acc.csv")
    assert ours["n_seeds"][list(demo.ROWS)].tolist() == [2, 1, 0]
    assert ours["chance"]["reference"] == pytest.approx(
        100 * evaluated.query("k == 10")["chance"].iloc[0]
    )
    assert 0 < ours["mean"]["reference"] <= 100
    shown = outputs(notebook, "text/html")[0]
    assert "70.7 ± 0.1" in shown
    assert f"{ours['mean']['no subject layer']:.1f} (1 of 2)" in shown
    assert len(outputs(notebook, "image/png")) == 1
    assert "70.7 ± 0.1" in Path("outputs/tables/table2_main_results.tex").read_text()


def test_tables_of_a_grid_that_was_never_run_show_the_paper(grid, kernel):
    notebook = execute(kernel, "table2_main_results", root=str(Path.cwd()), grid="nmi.wordlists")
    assert "70.7 ± 0.1" in outputs(notebook, "text/html")[0]
    notebook = execute(kernel, "figures", root=str(Path.cwd()), grid="nmi.wordlists")
    assert "nothing to draw" in outputs(notebook, "text/plain")[0]


def test_tables_3_and_4_have_differences_with_p(grid, kernel):
    notebook = execute(kernel, "table3_4_ablation", root=str(Path.cwd()), grid="demo")
    accuracies = pd.read_csv("outputs/tables/table3_ablation.csv")
    means = accuracies[accuracies["study"] == "fake"].set_index("row")["mean"]
    table = pd.read_csv("outputs/tables/table4_differences.csv")
    line = table[table["study"] == "fake"].iloc[0]
    assert line["row"] == "no subject layer"
    assert line["difference"] == pytest.approx(means["no subject layer"] - means["reference"])
    assert (line["n_subjects"], line["p_floor"]) == (4, 0.125)
    assert line["p"] >= 0.125
    shown = outputs(notebook, "text/html")
    assert "-33.6" in shown[1]
    assert f"(p = {line['p_holm']:.2g})" in shown[1]
    assert len(outputs(notebook, "image/png")) == 1


def test_other_tables_run_on_any_grid(grid, kernel):
    grids = {name: "demo" for name in ("mel_grid", "rate_grid", "word_grid")}
    notebook = execute(
        kernel, "other_tables", root=str(Path.cwd()), subject_grids=["demo"], **grids
    )
    for name in ("mel_bands", "rate_and_batch", "delay", "autoreject", "word_lists", "subjects"):
        table = pd.read_csv(f"outputs/tables/{name}.csv")
        assert table[table["study"] == "fake"]["mean"].notna().any(), name
        assert Path(f"outputs/tables/{name}.tex").exists()
    assert "55.1 ± 0.9" in outputs(notebook, "text/html")[0]


def test_figures_show_sensors_lags_words_and_what_is_known(grid, kernel):
    lags = {"n_segments": 20, "reach": 0.5, "step": 0.5}
    notebook = execute(kernel, "figures", root=str(Path.cwd()), grid="demo", **lags)
    assert len(outputs(notebook, "image/png")) == 3
    assert "Not analysed yet" in outputs(notebook, "text/plain")[-2]
    sig = grid.experiments[0].sig
    assert knowledge.main([f"sig={sig}", "n_folds=3"]) == 0
    encoder = train(experiment.get_xp(ENCODER))
    named = {"sig": sig, "encoding_sig": encoder.folder.name}
    notebook = execute(kernel, "figures", root=str(Path.cwd()), grid="demo", **named, **lags)
    assert len(outputs(notebook, "image/png")) == 5


def test_only_encoders_have_a_map_of_predicted_sensors(grid):
    with pytest.raises(DataError, match=r"task\.type=encode"):
        draw_encoding(play.get_solver_from_sig(grid.experiments[0].sig))


def test_first_steps_lead_from_recordings_to_the_head(grid, kernel):
    notebook = execute(kernel, "first_steps", root=str(Path.cwd()))
    printed = [
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    ]
    (line,) = [one for one in "".join(printed).splitlines() if one.startswith("top-10")]
    accuracy, chance = (
        float(line.split(word)[1].split(" %")[0]) for word in ("accuracy ", "chance ")
    )
    assert accuracy > 2 * chance
    assert len(outputs(notebook, "image/png")) == 3
