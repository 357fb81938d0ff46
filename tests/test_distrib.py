"""Several processes give the numbers of one."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from dora.distrib import DistribSpec
from ranks import build, run_ranks, step, step_on_share

from bm import train
from bm.core.machine import bf16_unit
from bm.segments import SegmentLoader

BATCH_SIZE = 18  # shares of 9 and 9, or of 5, 5, 4 and 4
SETTINGS = [
    "dset.selections=[fake]",
    "+selections.fake.n_minutes=4",
    "dset.features=[MelSpectrum]",
    "dset.features_params.MelSpectrum.n_mels=8",
    "dset.sample_rate=60",
    "dset.block_grouping=stimulus_time",
    "simpleconv.hidden.meg=8",
    "simpleconv.depth=4",
    "simpleconv.dilation_period=2",
    "simpleconv.merger_channels=6",
    "simpleconv.merger_pos_dim=32",
    "simpleconv.initial_linear=6",
    "feature_model=deep_mel",
    "feature_model_params.n_hidden_channels=8",
    "feature_model_params.n_hidden_layers=4",
    "feature_model_params.n_out_channels=8",
    f"optim.batch_size={BATCH_SIZE}",
    "optim.max_batches=1",
    "device=cpu",
]
ALL = ["optim.negatives_scope=all", "optim.batch_norm_scope=all"]


@pytest.mark.parametrize(
    ("spec", "variables", "n_threads"),
    [
        (DistribSpec(0, 1, 0, 0, 1, "empty"), {}, 6),
        (DistribSpec(1, 3, 1, 0, 1, "env"), {}, 2),
        (DistribSpec(1, 16, 1, 0, 1, "env"), {}, 1),
        (DistribSpec(1, 4, 1, 0, 2, "submitit"), {"SLURM_CPUS_PER_TASK": "4"}, 4),
        (DistribSpec(1, 4, 1, 0, 2, "submitit"), {}, 6),
        (DistribSpec(1, 3, 1, 0, 1, "env"), {"OMP_NUM_THREADS": "5"}, None),
    ],
)
def test_processes_share_the_cores(spec, variables, n_threads, monkeypatch):
    told = []
    monkeypatch.setattr(train.torch, "set_num_threads", told.append)
    monkeypatch.setattr(train, "n_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    train.share_cores(spec)
    assert told == ([] if n_threads is None else [n_threads])


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    settings = [*SETTINGS, f"cache={tmp_path_factory.mktemp('cache')}"]
    build(settings)  # fills the cache
    return settings


@pytest.fixture(scope="module")
def whole(settings):
    """One process with the whole batch."""
    solver = build(settings)
    found = step(solver)
    return {**found, "valid": solver._validate()["loss"]}


@pytest.fixture(scope="module")
def together(settings, tmp_path_factory):
    """Results of the ranks, by their number and the scope of negatives and statistics."""
    out, known = tmp_path_factory.mktemp("ranks"), {}

    def run(n_ranks, scope):
        if (n_ranks, scope) not in known:
            extra = ALL if scope == "all" else []
            known[n_ranks, scope] = run_ranks(n_ranks, settings + extra, out / f"{n_ranks}{scope}")
        return known[n_ranks, scope]

    return run


def assert_equal(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=tolerance, msg=name)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("n_ranks", [2, 4])
def test_all_negatives_and_statistics_equal_one_process_with_the_whole_batch(
    n_ranks, whole, together
):
    for found in together(n_ranks, "all"):
        assert found["loss"] == pytest.approx(whole["loss"], rel=1e-6)
        assert_equal(found["gradients"], whole["gradients"])
        statistics = {k: v for k, v in whole["state"].items() if "running" in k}
        assert len(statistics) == 14
        assert_equal({name: found["state"][name] for name in statistics}, statistics)
        assert found["valid"] == pytest.approx(whole["valid"], abs=1e-3)  # after a step of Adam


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("n_ranks", [2, 4])
def test_negatives_of_the_rank_give_the_mean_over_shares(n_ranks, settings, together):
    shares = [step_on_share(build(settings), rank, n_ranks) for rank in range(n_ranks)]
    weights = [share["n_segments"] / BATCH_SIZE for share in shares]
    expected = {
        name: sum(w * share["gradients"][name] for w, share in zip(weights, shares, strict=True))
        for name in shares[0]["gradients"]
    }
    loss = sum(w * share["loss"] for w, share in zip(weights, shares, strict=True))
    for found in together(n_ranks, "rank"):
        assert found["loss"] == pytest.approx(loss, rel=1e-6)
        assert_equal(found["gradients"], expected)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ranks_stay_alike_and_retrieve_what_one_process_does(settings, together):
    first, second = together(2, "rank")
    for name, tensor in first["state"].items():
        assert torch.equal(tensor, second["state"][name]), name
    for name in ("test", "valid", "retrieval"):
        assert first[name] == second[name]
    alone = build(settings)
    expected = alone.retrieve().table  # of the best state: still the initial one
    assert first["retrieval"] == expected[["row", "candidate", "rank"]].to_numpy().tolist()
    assert alone.test() == first["test"]


def test_shares_of_an_epoch_make_up_its_batches_in_equal_steps(settings):
    dataset = build(settings).splits.datasets["valid"]
    whole = [batch.row for batch in SegmentLoader(dataset, 7).epoch(3)]
    parts = [
        [batch.row for batch in SegmentLoader(dataset, 7, rank=rank, n_ranks=3).epoch(3)]
        for rank in range(3)
    ]
    assert [len(part) for part in parts] == [len(whole)] * 3
    for batch, *shares in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat(shares), batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_evaluation_divides_whole_batches(settings):
    dataset = build(settings).splits.datasets["valid"]
    whole = [batch.row.tolist() for batch in SegmentLoader(dataset, 7).in_order()]
    parts = [
        [batch.row.tolist() for batch in SegmentLoader(dataset, 7, rank=r, n_ranks=3).in_order()]
        for r in range(3)
    ]
    assert sorted(sum(parts, [])) == sorted(whole)
    assert parts[1] == whole[1::3]


@pytest.fixture
def command(settings):
    return [
        sys.executable, "-m", "dora", "-P", "bm", "run", "-d", "--ddp_workers", "2", "--",
        *settings, "optim.max_batches=null",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_run_in_two_processes_is_one_experiment_that_learns_and_goes_on(
    command, tmp_path, python_env
):
    def run():
        done = subprocess.run(
            [*command, "optim.epochs=2", "optim.batch_size=32", "optim.precision=auto"],
            cwd=tmp_path, env=python_env, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        (folder,) = (tmp_path / "outputs" / "xps").iterdir()
        return done.stdout, (folder / "history.json").read_text()

    printed, text = run()
    assert f"optim.precision=auto: {'bf16' if bf16_unit('cpu') else 'fp32'}, as " in printed
    assert "32 are shared by 2 processes: 15 negatives per estimate" in printed
    history = json.loads(text)
    assert len(history) == 2
    assert history[1]["train"]["loss"] < history[0]["train"]["loss"]
    printed, again = run()
    assert "Resumed after epoch 2" in printed
    assert again == text


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("lost", [0, 1])
def test_lost_process_ends_the_others(command, tmp_path, python_env, lost):
    run = subprocess.Popen(
        [*command, "optim.epochs=1000", "early_stop_patience=1000"],
        cwd=tmp_path, env=python_env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not list(tmp_path.glob("outputs/xps/*/history.json")):
        assert run.poll() is None, "it ended before a process could be killed"
        time.sleep(0.1)
    workers = psutil.Process(run.pid).children()
    assert len(workers) == 2
    os.kill(next(w.pid for w in workers if w.environ()["RANK"] == str(lost)), signal.SIGKILL)
    assert run.wait(timeout=60) != 0
    assert not psutil.wait_procs(workers, timeout=20)[1]


def test_negatives_need_a_contrastive_loss(settings):
    with pytest.raises(ValueError, match="are for the contrastive loss"):
        build([*settings, "optim.negatives_scope=all", "optim.loss=mse"])
