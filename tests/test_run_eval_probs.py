from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dora import Explorer
from small_language_models import save_spacy

from bm import play
from bm.build import build_solver
from bm.config import from_hydra
from bm.train import main as experiment
from scripts import evaluate, run_eval_probs
from scripts import knowledge as script
from scripts.baselines import compare_baselines
from scripts.evaluate import evaluate_solver, sensor_maps
from scripts.experiments import experiments_of
from scripts.run_eval_probs import UsageError, read_options

SETTINGS = [
    "preset=demo",
    "dset.selections=[fake]",
    "optim.epochs=1",
    "optim.batch_size=32",
    "simpleconv.hidden.meg=16",
]


@pytest.fixture(scope="module")
def solver(tmp_path_factory):
    """Trained for one epoch on two simulated listeners."""
    folder = tmp_path_factory.mktemp("experiment")
    config = from_hydra(experiment.get_xp([*SETTINGS, f"cache={folder / 'cache'}"]).cfg)
    provenance = [("optim.epochs", 1, "command line")]
    solver = build_solver(config, folder / "xps" / "1234e567", provenance=provenance)
    solver.run()
    return solver


def test_evaluation_agrees_with_training_and_with_its_files(solver, tmp_path):
    evaluation = evaluate_solver(solver, tmp_path / "out")
    accuracy = solver.history[-1]["test"]["segment_top10"]
    assert evaluation.retrieval.accuracy(10) == accuracy
    table = pd.read_csv(tmp_path / "out" / "acc.csv")
    everyone = table[(table["subject"] == "all") & (table["k"] == 10)].iloc[0]
    assert everyone["accuracy"] == pytest.approx(accuracy)
    assert everyone["chance"] == 10 / everyone["n_candidates"]
    assert everyone["accuracy"] <= everyone["ceiling"] <= 1
    metadata = pd.read_csv(tmp_path / "out" / "metadata.csv", keep_default_na=False)
    assert (metadata["rank"] < 10).mean() == pytest.approx(accuracy)
    assert set(metadata["subject"]) == {"fake/simulated-01", "fake/simulated-02"}
    assert evaluation.headline == (
        f"top-10 segment accuracy {100 * accuracy:.1f} % (chance {1000 / len(metadata) * 2:.1f} %, "
        f"{len(metadata) // 2} candidates, ceiling {100 * everyone['ceiling']:.1f} %)"
    )


def test_what_the_decoder_knows_is_told_of_each_feature_that_can_be_found(
    solver, tmp_path, caplog, capsys, monkeypatch
):
    model = save_spacy(tmp_path / "model", "en", vectors={"the": [1.0, 0.0], "of": [0.0, 1.0]})
    monkeypatch.setattr(play, "get_solver_from_sig", lambda sig: solver)
    out = tmp_path / "out"
    assert script.main(["sig=1234e567", f"out={out}", f"model={model}", "n_folds=3"]) == 0
    assert "PartOfSpeech left out" in caplog.text  # the model has vectors alone
    expected = ["phonemes", "word frequency", "word embedding", "phrase embedding", "all together"]
    summary = pd.read_csv(out / "knowledge_summary.csv")
    assert summary["feature"].tolist() == expected
    assert summary["n_subjects"].tolist() == [2] * 5
    table = pd.read_csv(out / "knowledge.csv")
    assert set(table["subject"]) == {"fake/simulated-01", "fake/simulated-02"}
    assert (out / "knowledge.svg").read_text(encoding="utf-8").count("word frequency") == 1
    printed = capsys.readouterr().out
    assert all(name in printed for name in expected)
    assert script.main(["sig=1234e567", "n_folds=2"]) == 2
    assert script.main(["n_folds=3"]) == 2
    assert script.main(["--help"]) == 0


def test_report_of_simulated_listeners_is_complete(solver, tmp_path):
    page = evaluate_solver(solver, tmp_path).report.read_text(encoding="utf-8")
    for expected in (
        "Simulated data.", "1234e567", "optim.epochs", "command line", "Sensors attended to",
        "Examples", "Simulated response", "ceiling", "Versions",
    ):  # fmt: skip
        assert expected in page
    assert 4 <= page.count("<blockquote>") <= 8
    assert page.count('class="guess') >= 5 * page.count("<blockquote>")


def test_attention_of_a_sensor_is_averaged_over_the_recordings_that_have_it(solver):
    (only,) = sensor_maps(solver)
    assert len(only.names) == 16
    assert np.isfinite(only.weights).all()
    n_virtual = solver.model.merger.heads.shape[0]
    assert (only.weights > 0).all()
    assert only.weights.mean() == pytest.approx(n_virtual / 15, rel=0.05)  # one flat in each


def test_control_is_named_and_has_no_ceiling(solver, tmp_path):
    solver.about["config"]["dset"]["control"] = "shuffled"
    try:
        evaluation = evaluate_solver(solver, tmp_path)
    finally:
        solver.about["config"]["dset"]["control"] = "none"
    assert evaluation.ceiling is None
    assert "shifted apart" in evaluation.report.read_text(encoding="utf-8")


def test_checkpoint_is_evaluated_from_the_command_line(solver, tmp_path, capsys):
    arguments = [f"checkpoint={solver.folder}", f"out={tmp_path}"]
    assert run_eval_probs.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "1234e567: top-1 segment accuracy" in printed
    assert "1234e567: top-10 segment accuracy" in printed
    assert "chance" in printed
    assert (tmp_path / "report.html").exists()
    table = pd.read_csv(tmp_path / "acc.csv")
    expected = [solver.history[-1]["test"][f"segment_top{k}"] for k in (1, 5, 10)]
    assert table["accuracy"][:3].tolist() == pytest.approx(expected)


def test_experiment_that_fails_does_not_stop_the_others(
    solver, tmp_path, capsys, monkeypatch, caplog
):
    def load(sig):
        if sig == "deadbeef":
            raise ValueError("no experiment 'deadbeef'")
        return solver

    monkeypatch.setattr(evaluate.play, "get_solver_from_sig", load)
    assert run_eval_probs.main(["sigs=[deadbeef,1234e567]", f"out={tmp_path}"]) == 1
    printed = capsys.readouterr()
    assert "1234e567: top-10" in printed.out
    assert "1 of 2 failed: deadbeef" in printed.err
    assert "no experiment 'deadbeef'" in caplog.text
    assert (tmp_path / "1234e567" / "acc.csv").exists()


def test_signatures_stay_text():
    assert read_options(["sigs=[01234567,1234e567, 557f5f8a]"]).sigs == [
        "01234567", "1234e567", "557f5f8a",
    ]  # fmt: skip
    assert read_options(["sigs=34219380", "out=results"]).out == Path("results")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sig=[a]"], "Did you mean 'sigs'"),
        (["sigs=[a]", "grid_name=nmi"], "exactly one of sigs=, grid_name=, checkpoint="),
        (["out=results"], "exactly one"),
        (["sigs=[]"], "sigs is empty"),
        (["sigs="], "needs a value"),
        (["checkpoint"], "needs a value"),
        (["sigs=[a]", "sigs=[b]"], "twice"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(arguments, message, capsys):
    with pytest.raises(UsageError, match=message.replace("[", r"\[")):
        read_options(arguments)
    assert run_eval_probs.main(arguments) == 2
    assert "--help" in capsys.readouterr().err


def test_help_is_printed(capsys):
    assert run_eval_probs.main(["--help"]) == 0
    assert run_eval_probs.main([]) == 2
    assert capsys.readouterr().out.count("grid_name=nmi.main_table") == 2


def test_unknown_grid_names_the_known_ones(capsys):
    assert run_eval_probs.main(["grid_name=nmi.main_tabel"]) == 2
    assert "Did you mean 'nmi.main_table'" in capsys.readouterr().err


def test_signatures_of_a_grid_come_from_its_explorer():
    @Explorer
    def explorer(launcher):
        bound = launcher.slurm(gpus=2).bind({"model": "clip_conv", "seed": 2036})
        with bound.job_array():
            for selection in ("brennan2019", "brennan2019", "gwilliams2022"):
                bound({"dset.selections": [selection]})

    assert [xp.sig for xp in experiments_of(explorer)] == ["4395629c", "6e3bf7d7"]


def test_baselines_stand_between_chance_and_the_ceiling(solver):
    table = compare_baselines(solver).set_index("decoder")
    assert table.index.tolist() == ["ceiling", "trained", "ridge regression", "chance"]
    assert table["top-10"]["chance"] < table["top-10"]["ridge regression"]
    assert (table["top-10"] <= table["top-10"]["ceiling"] + 1e-9).all()
