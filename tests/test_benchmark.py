"""Benchmarks run end to end at tiny sizes, and the reference does the same work as bm."""

import json
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bm.evaluation import retrieve
from bm.losses import ClipLoss
from bm.metrics import rank_of_truth
from bm.scaling import BatchScaler
from bm.segments import SegmentLoader
from scripts import benchmark
from scripts.benchmarks import evaluate, start
from scripts.benchmarks.parts import memory, plain_start
from scripts.benchmarks.parts.made import gatherer, make
from scripts.benchmarks.parts.measure import in_turn, rows_of
from scripts.benchmarks.parts.plain import PlainData, PlainScaler, places

SMALL = ["hours=0.05", "n_sensors=4", "n_subjects=2", "repeats=2", "n_threads=1"]
DATA = ["n_batches=2", "batch_size=8", "reference_segments=8"]
ABSENT = ("mne", "pandas", "hydra", "omegaconf", "dora", "scipy", "julius", "soundfile", "tqdm")


def run(*arguments: str) -> list[dict[str, object]]:
    """Rows of the benches, read back from the file of JSON lines."""
    file = Path(arguments[-1].removeprefix("json="))
    assert benchmark.main(arguments) == 0
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_row_says_what_was_measured_against_what_and_where(tmp_path, capsys):
    rows = run("data", "features=[mel]", *SMALL, *DATA, f"json={tmp_path / 'rows.jsonl'}")
    assert [row["case"] for row in rows] == ["mel, plain", "mel, host"]
    assert [row["ratio"] is None for row in rows] == [True, False]
    for row in rows:
        assert row["bench"] == "data"
        assert row["unit"] == "segments/s"
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["n"] == 2
        assert row["settings"]["n_sensors"] == 4
        assert row["machine"]["n_cores"] >= 1
        assert row["versions"]["torch"] == torch.__version__
    assert capsys.readouterr().out.count("segments/s") == 2


def test_rows_are_added_to_those_of_earlier_runs(tmp_path):
    arguments = ["data", "features=[mel]", *SMALL, *DATA, f"json={tmp_path / 'rows.jsonl'}"]
    assert len(run(*arguments)) == 2
    assert len(run(*arguments)) == 4


def test_all_residencies_and_storages_are_measured_in_one_run(tmp_path):
    options = ["residencies=[host,disk]", "storages=[fp32,fp16]", "features=[wav2vec]"]
    rows = run("data", *options, *SMALL, *DATA, f"json={tmp_path / 'rows.jsonl'}")
    assert [row["case"] for row in rows] == [
        "wav2vec, plain", "wav2vec, host", "wav2vec, host, fp16", "wav2vec, disk",
        "wav2vec, disk, fp16",
    ]  # fmt: skip


def test_the_plain_loop_gives_the_segments_that_bm_gives(tmp_path):
    made = make(0.05, 5, 3)
    segments = gatherer(made)
    scaler = BatchScaler().fit(segments, len(made.signals), seed=0)
    rows = torch.tensor([0, 3, len(segments) - 1])
    ours = scaler(segments.gather(rows))
    plain = PlainData(made, places(segments), tmp_path)
    samples = torch.utils.data.default_collate([plain[int(row)] for row in rows])
    theirs = PlainScaler(scaler)(samples)
    torch.testing.assert_close(theirs.meg, ours.meg, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(theirs.features, ours.features)
    assert torch.equal(theirs.subject_index, ours.subject_index)
    assert (theirs.mask == ours.mask).double().mean() > 0.98  # words begin between two samples


def test_cases_are_measured_in_turn_after_one_round_to_warm_up():
    calls = []

    def case(name, value):
        return lambda: calls.append(name) or value

    figures = in_turn({"a": case("a", 2.0), "b": case("b", 4.0)}, 3)
    assert calls == ["a", "b"] * 4
    assert figures == {"a": [2.0] * 3, "b": [4.0] * 3}
    assert [row.ratio for row in rows_of("x", "1/s", figures, "a")] == [None, 2.0]
    assert [row.ratio for row in rows_of("x", "s", figures, "a", less_is_better=True)][1] == 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dta"], "There is no bench 'dta': choose from data"),
        (["data", "hors=1"], "Unknown option 'hors': choose from batch_size"),
        (["data", "hours=long"], "hours=long should be a number"),
        (["data", "hours="], "Option hours needs a value"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(arguments, said, capsys):
    assert benchmark.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_help_lists_the_benches_and_the_options_of_one(capsys):
    assert benchmark.main(["--help"]) == 0
    assert "data        Batches" in capsys.readouterr().out
    assert benchmark.main(["data", "--help"]) == 0
    assert "residencies=[host]" in capsys.readouterr().out


@pytest.mark.slow
def test_data_and_step_run_with_torch_and_numpy_alone(root, python_env, tmp_path):
    file = tmp_path / "rows.jsonl"
    hide = "; ".join(["import sys", *(f"sys.modules[{name!r}] = None" for name in ABSENT)])
    run = "from scripts.benchmark import main; sys.exit(main(sys.argv[1:]))"
    options = [
        "hours=0.05", "n_sensors=4", "n_subjects=2", "repeats=1", "n_threads=1", "n_batches=2",
        "batch_size=4", "reference_segments=8", "features=[mel]", "precisions=[fp32]",
        "n_steps=1", "n_outputs=8",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", f"{hide}; {run}", *BENCHES_OF_TORCH, *options, f"json={file}"],
        cwd=root, env=python_env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["bench"] for row in rows} == set(BENCHES_OF_TORCH)


BENCHES_OF_TORCH = ["data", "step"]


def test_evaluation_is_measured_beside_a_roof_one_query_at_a_time_and_all_in_memory(tmp_path):
    sizes = ["n_queries=14", "n_candidates=12", "n_estimates=8", "n_sensors=4", "n_subjects=2"]
    options = [*sizes, "feature=mel", "repeats=1", "n_threads=1", "memory=false"]
    rows = run("evaluate", *options, f"json={tmp_path / 'rows.jsonl'}")
    assert [(row["case"], row["unit"]) for row in rows] == [
        ("roof, fp32", "GFLOP/s"), ("scores, fp32", "GFLOP/s"),
        ("roof, bf16", "GFLOP/s"), ("scores, bf16", "GFLOP/s"),
        ("scores, bf16, beside scores, fp32", "GFLOP/s"),
        ("words, plain", "queries/s"), ("words, fp32", "queries/s"), ("words, bf16", "queries/s"),
    ]  # fmt: skip
    assert [row["ratio"] is None for row in rows] == [
        True,
        False,
        True,
        *2 * [False],
        True,
        *2 * [False],
    ]


def test_retrieval_of_the_bench_has_as_many_candidates_as_asked_for():
    settings = evaluate.Settings(14, 12, "mel", 4, 2)
    evaluated = evaluate.Evaluated(settings)
    dataset = evaluated.dataset
    batches = SegmentLoader(dataset, 4).in_order()
    found = retrieve(dataset, batches, evaluated.estimate, evaluated.target)
    assert (len(found.table), found.n_candidates) == (14, 12)
    assert found.table["candidate"].tolist() == [*range(12), 0, 1]
    candidates = evaluate.targets(evaluated, settings)
    plain = ClipLoss().scores(
        evaluated.estimate(dataset.gather(torch.arange(14))).values, candidates
    )
    assert found.table["rank"].tolist() == rank_of_truth(plain, torch.arange(14) % 12).tolist()


def test_peak_of_memory_is_that_since_it_was_forgotten():
    memory.forget_peak()
    before = memory.used()
    with mmap.mmap(-1, 100 << 20) as held:  # nothing that was freed before is used again
        for page in range(0, 100 << 20, mmap.PAGESIZE):
            held[page] = 1
        assert memory.used() - before > 90 << 20
    assert memory.used() - before < 10 << 20
    assert memory.peak() - before > 90 << 20
    memory.forget_peak()
    assert memory.peak() - before < 10 << 20


def test_preprocessing_is_measured_and_gives_what_a_whole_array_gives(tmp_path):
    options = ["minutes=0.2", "n_sensors=4", "repeats=1", "n_threads=1"]
    rows = run("preprocess", *options, f"json={tmp_path / 'rows.jsonl'}")
    assert [(row["case"], row["unit"]) for row in rows] == [
        ("plain", "s"), ("bm", "s"), ("plain", "GiB"), ("bm", "GiB"), ("bm", "difference"),
    ]  # fmt: skip
    assert rows[-1]["median"] < 1e-4


def test_plain_start_opens_what_was_prepared_and_gives_a_scaled_batch(tmp_path):
    plain_start.prepare(tmp_path, 0.02, 2, 5)
    times = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    batch = plain_start.first_batch(str(tmp_path), 6, 1)
    assert batch.shape == (6, 5, 361)
    assert batch.abs().max() <= 20
    assert 0.5 < batch.std() < 1.0  # noise over its interquartile range
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == times


def test_what_is_timed_as_a_start_ends_with_a_whole_batch(tmp_path):
    settings = start.Settings(1, 1.0, 8, batch_size=8)
    assert start.start(start.OURS, tmp_path, settings, *start.arguments(tmp_path, settings)) > 0
    with pytest.raises(RuntimeError, match="printed '3' instead of '8'"):
        start.start("print(3)", tmp_path, settings)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        start.start("1 / 0", tmp_path, settings)


def test_more_recordings_are_measured_beside_fewer(tmp_path):
    sizes = ["factors=[1,3]", "n_recordings=1", "minutes=0.2", "n_sensors=4", "repeats=1"]
    rows = run("scale", *sizes, f"json={tmp_path / 'rows.jsonl'}")
    assert [(row["case"], row["unit"]) for row in rows] == [
        ("disk, 1 x", "segments/s"), ("disk, 3 x", "segments/s"),
        ("disk, 1 x", "GiB"), ("disk, 3 x", "GiB"),
    ]  # fmt: skip
    assert all(row["median"] > 0 for row in rows)
