"""Training with options of the contrastive loss (learned parts, negatives) and of its speed."""

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from ranks import build
from torch._dynamo.utils import counters

from bm.checkpoint import CHECKPOINT, read_checkpoint
from bm.objective import Negatives, contents
from bm.solver import Solver

SETTINGS = (
    "preset=demo",
    "dset.selections=[fake]",
    "dset.features=[MelSpectrum]",
    "dset.features_params.MelSpectrum.n_mels=8",
    "dset.sample_rate=60",
    "dset.block_grouping=stimulus_time",
    "simpleconv.depth=2",
    "simpleconv.hidden.meg=8",
    "optim.batch_size=32",
    "optim.epochs=2",
    "optim.max_batches=3",
    "optim.precision=fp32",
)
LEARNED = (
    "clip.linear=4",
    "clip.twin=false",
    "clip.normalise=both",
    "clip.temperature=true",
    "clip.duplicates=mask",
    "optim.negatives=20",
    "optim.negative_pool_size=60",
    "optim.svd=1e-3",
)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory):
    cache = tmp_path_factory.mktemp("cache")

    def build_one(*overrides: str) -> Solver:
        return build([*SETTINGS, f"cache={cache}", *overrides])

    return build_one


def run(solver: Solver, folder: Path, n_epochs: int) -> list[dict[str, dict[str, float]]]:
    solver.folder = folder
    solver.restore()
    while len(solver.history) < n_epochs:
        solver._run_epoch(len(solver.history))
        solver.save()
    return solver.history


def test_learned_parts_of_the_loss_are_trained_kept_and_resumed_exactly(make, tmp_path):
    solver = make(*LEARNED)
    begun = {name: value.clone() for name, value in solver.loss.state_dict().items()}
    whole = run(solver, tmp_path / "whole", 2)
    assert set(begun) == {
        "similarity.log_scale",
        *(f"similarity.project_{who}.{what}"
          for who in ("estimates", "candidates") for what in ("weight", "bias")),
    }  # fmt: skip
    assert all(not torch.equal(solver.loss.state_dict()[name], begun[name]) for name in begun)
    kept = read_checkpoint(tmp_path / "whole" / CHECKPOINT)["models"]
    assert {f"loss.{name}" for name in begun} <= set(kept)
    run(make(*LEARNED), tmp_path / "cut", 1)
    assert run(make(*LEARNED), tmp_path / "cut", 2) == whole


def test_parts_of_a_batch_give_the_gradients_of_the_whole_to_the_loss_too(make):
    gradients = []
    for overrides in ((), ("optim.micro_batch=5",)):
        solver = make("clip.linear=4", "optim.max_batches=1", *overrides)
        for module in solver.models.modules():  # its statistics are of a part of the batch
            if isinstance(module, torch.nn.BatchNorm1d):
                module.momentum = 0.0
        solver.models.eval()
        (batch,) = list(solver._loader("train", 1).epoch(0))
        solver._backward(solver.scaler(batch), 1.0)
        gradients.append(solver.loss.similarity.project_candidates.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_retrieval_scores_as_the_loss_does(make):
    solver = make("clip.linear=4", "clip.tmin=0.5", "clip.normalise=both")
    dataset = solver.splits.datasets["test"]
    retrieval = solver.retrieve()
    first = retrieval.table.iloc[:8]
    with solver.best(), torch.no_grad():
        queries = solver.estimate(dataset.gather(torch.tensor(first["row"].tolist())))
        rows = [dataset.table.index[i] for i in _first_rows(dataset)]
        candidates = solver.target(dataset.gather(torch.tensor(rows)))
        scores = solver.loss.scores(queries.values, candidates.values)
    assert scores.argmax(dim=1).tolist() == [best[0] for best in first["best"]]


@pytest.mark.parametrize(
    "overrides",
    [
        ("clip.linear=4",),
        ("dset.storage=fp16", "dset.residency=disk"),
        ("norm.clip=false", "norm.max_scale=6"),
        ("test.wer_random=true",),
    ],
)
def test_queries_come_without_features_and_are_told_the_same(make, overrides):
    solver = make(*overrides)
    dataset = solver.splits.datasets["valid"]
    with solver.best(), torch.no_grad():
        for query in solver.queries(dataset).in_order():
            assert query.features.shape == (len(query), 0, dataset.n_times)
            expected = solver.predict(dataset.gather(query.row))
            told = solver.estimate(query)
            assert torch.equal(told.values, expected.estimate)
            assert torch.equal(told.row, expected.row)


def _first_rows(dataset) -> list[int]:
    seen: dict[int, int] = {}
    for row, content in enumerate(contents(dataset).tolist()):
        seen.setdefault(content, row)
    return list(seen.values())


def test_negatives_hold_nothing_of_the_batch_and_come_from_the_pool(make):
    dataset = make().splits.datasets["train"]
    content = contents(dataset)
    negatives = Negatives(dataset, n=15, pool_size=40, seed=1)
    drawn: set[int] = set()
    negatives.begin(0)
    for first in range(0, 60, 12):
        batch = content[first : first + 12]
        rows = negatives.draw(content, batch)
        assert len(rows) == len(set(rows.tolist())) == 15
        assert not torch.isin(content[rows], batch).any()
        drawn |= set(rows.tolist())
    assert len(drawn) <= 40
    negatives.begin(0)
    again = negatives.draw(content, content[:12])
    negatives.begin(1)
    assert not torch.equal(again, negatives.draw(content, content[:12]))


def test_further_negatives_make_the_task_harder(make):
    def first_loss(*overrides: str) -> float:
        solver = make(*overrides)
        torch.manual_seed(0)
        return solver._train(0)["loss"]

    assert first_loss("optim.negatives=100") > first_loss() + 0.5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.negatives=0"], r"optim\.negatives=0 must be at least 1"),
        (["optim.negative_pool_size=9"], "is where optim.negatives=None are drawn from"),
        (["optim.loss=l1", "clip.pool=true"], r"clip\.pool=True is for optim\.loss=clip"),
        (["optim.loss=mse", "optim.negatives=5"], "has no negatives"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, overrides: Sequence[str], message: str):
    with pytest.raises(ValueError, match=message):
        make(*overrides)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_encoder_learns_the_same_weights_by_the_same_names(make):
    small = ("optim.max_batches=1", "optim.batch_size=8", "simpleconv.depth=1", "simpleconv.glu=0")
    still = ("optim.epochs=0", "simpleconv.merger_dropout=0")  # compiled, it draws other numbers
    learned = []
    for overrides in ((), ("optim.compile=true",)):
        solver = make(*small, *still, *overrides)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own, about its version of Python
            solver.run()
            torch.manual_seed(0)
            learned.append((solver._train(0)["loss"], solver.models.state_dict()))
    assert counters["stats"]["unique_graphs"] > 0
    (loss, weights), (of_compiled, compiled) = learned
    assert of_compiled == pytest.approx(loss, rel=1e-4)
    assert weights.keys() == compiled.keys()
    for name, value in weights.items():
        torch.testing.assert_close(compiled[name], value, atol=2e-3, rtol=0)  # Adam's step: 1e-3


def test_gpus_multiply_in_tf32_where_that_was_asked_for_and_nowhere_else(make, caplog):
    make("optim.precision=tf32", "optim.epochs=0").run()
    assert torch.backends.cuda.matmul.allow_tf32
    assert "optim.precision=tf32 is for GPUs: cpu works in fp32" in caplog.text
    make("optim.epochs=0").run()
    assert not torch.backends.cuda.matmul.allow_tf32


def test_compiling_without_a_compiler_is_refused(make, monkeypatch):
    monkeypatch.setenv("CXX", "absent++")
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler, but there is no absent\+\+"):
        make("optim.compile=true", "optim.epochs=0").run()
