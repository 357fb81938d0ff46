"""Reproductions: the published experiments are run, and each line gets the verdict it deserves."""

from pathlib import Path

import pandas as pd
import pytest
from fixtures import masc
from test_end_to_end_studies import SMALL

from bm.grids.nmi import main_table
from bm.grids.nmi._studies import REGRESSION
from bm.published.results import SIGNATURES
from bm.studies.brennan2019 import Brennan2019
from bm.studies.gwilliams2022 import Gwilliams2022
from bm.train import main as experiment
from scripts import reproduce, verdicts
from scripts.arguments import UsageError
from scripts.verdicts import compare_accuracies, compare_chance, compare_counts, compare_facts


@pytest.mark.parametrize("study", SIGNATURES)
def test_published_experiments_are_those_that_are_run(study):
    options, overrides = reproduce.read([f"study={study}", "seeds=2036", "cache=/elsewhere"])
    grid = reproduce.make_grid(options, overrides)
    assert grid.signatures == [SIGNATURES[study]]
    assert grid.experiments[0].cfg.cache == "/elsewhere"
    assert reproduce.changed_options(options, [*overrides, "norm.max_scale=30"]) == [
        "norm.max_scale=30"
    ]


def test_regression_is_judged_by_the_contrastive_loss():
    options, _ = reproduce.read(["study=brennan2019", "row=mel, regression", "seeds=2036"])
    parent, child = reproduce.make_grid(options, ["optim.batch_size=8"]).experiments
    assert main_table.ROWS[options.row] == REGRESSION
    assert parent.cfg.optim.loss == "mse"
    assert child.cfg.continue_sig == parent.sig
    assert child.cfg.optim.batch_size == 8
    assert child.cfg.optim.lr == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study=gwiliams2022"], "gwilliams2022"),
        ([], "study=''"),
        (["study=brennan2019", "row=wav2vec"], "wav2vec 2.0"),
        (["study=brennan2019", "seeds=one"], "seeds=one"),
        (["study=brennan2019", "seed=1"], "seed is decided by"),
        (["study=brennan2019", "row=DeepMel", "feature_model=none"], "feature_model is decided"),
        (["study=broderick2019", "test.wer_recordings=3"], "test.wer_recordings is decided"),
        (["study=brennan2019", "ddp=0"], "ddp"),
    ],
)
def test_what_the_row_decides_is_refused(arguments, message):
    with pytest.raises((UsageError, ValueError), match=message):
        reproduce.read(arguments)


# Verdicts


def verdict_of(lines, what: str) -> list[str]:
    return [line.verdict for line in lines if line.what == what]


def test_counts_are_compared_with_the_data_and_with_the_paper():
    found = {"subjects": 27, "recordings": 194, "hours": 55.9, "sensors": 208, "candidates": 1428}
    lines = compare_facts(Gwilliams2022.facts, found)
    assert [line.expected for line in lines] == ["27", "192 to 196", "56 to 57.5", "208"]
    assert [line.verdict for line in lines] == ["as expected"] * 2 + ["differs", "as expected"]
    lines = compare_counts("gwilliams2022", "wav2vec 2.0", found)
    assert verdict_of(lines, "hours") == ["as expected"]  # 56.2, within 2 %
    assert verdict_of(lines, "recordings") == ["differs"]
    assert verdict_of(lines, "candidates") == ["as expected"]
    assert verdict_of(lines, "test samples") == ["not run"]
    assert verdict_of(lines, "million parameters") == ["not run"]
    assert not verdict_of(compare_counts("gwilliams2022", "DeepMel", found), "million parameters")
    (line,) = [
        one for one in compare_counts("brennan2019", "", {"test segments": 191}) if one.found
    ]
    assert line.verdict == verdicts.COUNTED_OTHERWISE
    assert line.is_fine
    (line,) = compare_facts(Brennan2019.facts, {"subjects": 41})
    assert (line.expected, line.found, line.verdict) == ("42", "41", "differs")
    assert not line.is_fine


def test_chance_is_that_of_the_papers_random_model():
    assert compare_chance("brennan2019", 100 * 10 / 190).verdict == "as expected"
    assert compare_chance("brennan2019", 100 * 10 / 204).verdict == "differs"
    assert compare_chance("brennan2019", None).verdict == "not run"


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        ([70.3, 70.6, 70.4], "reproduced"),
        ([69.0, 69.0, 69.0], "below the paper"),
        ([66.0, 69.0, 72.0], "reproduced"),  # seeds differ as much
        ([72.0, 72.1, 71.9], "above the paper"),
        ([70.3], "reproduced"),
        ([], "not run"),
    ],
)
def test_accuracy_is_reproduced_within_a_point_or_the_spread_of_seeds(accuracies, verdict):
    study, row = "gwilliams2022", "wav2vec 2.0"
    (line,) = compare_accuracies(study, row, {"top10": accuracies}, 3, True)
    assert line.verdict == verdict
    assert line.expected == "70.7 ± 0.1 %"
    assert ("(1 of 3 seeds)" in line.found) == (len(accuracies) == 1)
    if accuracies:
        (line,) = compare_accuracies(study, row, {"top10": accuracies}, 3, False)
        assert line.verdict == "not comparable: other options"


def test_without_a_published_figure_there_is_no_verdict():
    lines = list(compare_accuracies("brennan2019", "DeepMel", {"top1": [5.0, 6.0]}, 2, True))
    assert [(line.found, line.verdict) for line in lines] == [
        ("5.5 ± 0.7 %", "no figure to compare")
    ]


# All of it


@pytest.mark.slow
@pytest.mark.timeout(400)  # two processes, on a machine that may be busy
@pytest.mark.filterwarnings("ignore:unclosed file .*(argv|history).json:ResourceWarning")  # Dora's
def test_a_miniature_study_is_reproduced_from_its_files_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masc.write_study(tmp_path / "data" / "gwilliams2022")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment.dora, "dir", tmp_path / "outputs")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    arguments = ["study=gwilliams2022", "row=mel, contrastive", "seeds=2036", *SMALL]
    assert reproduce.main(arguments) == 1  # a miniature has other counts
    folder = tmp_path / "outputs" / "reproduce" / "gwilliams2022"
    table = pd.read_csv(folder / "reproduction.csv", keep_default_na=False)
    lines = table.set_index("what")
    assert lines.loc["leak audit", "verdict"] == "as expected"
    assert lines.loc["top-10 accuracy", "expected"] == "55.1 ± 0.7 %"
    assert lines.loc["top-10 accuracy", "verdict"] == "not comparable: other options"
    assert set(lines.loc["sensors", "verdict"]) == {"as expected"}
    assert set(lines.loc["subjects", "verdict"]) == {"differs"}
    assert "not run" not in set(table["verdict"])
    text = (folder / "reproduction.md").read_text(encoding="utf-8")
    n_fine = table["verdict"].isin(verdicts.FINE).sum()
    assert f"{n_fine} of {len(table)} lines are as expected" in " ".join(text.split())
    assert text.count("\n| ") == len(table) + 1
    assert "`simpleconv.depth=2`" in text
    assert "1 of 1 done" in text
    (report,) = (tmp_path / "outputs" / "xps").glob("*/evaluation/report.html")
    assert str(report) in text
    assert str(folder.relative_to(tmp_path)) in capsys.readouterr().out
