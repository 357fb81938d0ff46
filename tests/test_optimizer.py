"""Steps of training: schedule, decay, clipping, average; a restart changes none of them."""

import math
from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from ranks import build, run_ranks, step
from torch import nn

from bm.build import build_solver
from bm.config import from_hydra
from bm.optimizer import Optimizer, OptimizerSettings, learning_rate_factor
from bm.train import main

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
    "optim.batch_size=16",
    "optim.max_batches=3",
    "optim.epochs=3",
    "device=cpu",
]
ALL_ON = [
    "optim.name=adamw",
    "optim.weight_decay=0.1",
    "optim.schedule=cosine",
    "optim.warmup=1",
    "optim.max_gradient_norm=0.5",
    "optim.ema=0.9",
    "optim.lr=3e-3",
]


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    return [*SETTINGS, *ALL_ON, f"cache={tmp_path_factory.mktemp('cache')}"]


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()


def set_gradients(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for one in model.parameters():
        one.grad = torch.randn(one.shape, generator=generator, dtype=one.dtype)


def test_cosine_schedule_rises_in_the_warmup_and_ends_at_zero():
    settings = OptimizerSettings(schedule="cosine", warmup=2, epochs=10)
    factors = [learning_rate_factor(settings, number, 5) for number in range(50)]
    assert factors[0] == pytest.approx(0.05)
    assert factors[9] == pytest.approx(0.95)
    assert factors[30] == pytest.approx(0.5 * (1 + math.cos(math.pi * 20.5 / 40)))
    assert 0 < factors[-1] < 1e-3
    assert all(a < b for a, b in pairwise(factors[:10]))
    assert all(a > b for a, b in pairwise(factors[10:]))
    constant = OptimizerSettings(warmup=2, epochs=10)
    assert learning_rate_factor(constant, 9, 5) == pytest.approx(0.95)
    assert learning_rate_factor(constant, 10, 5) == 1.0


def test_first_step_of_adamw_shrinks_weights_and_leaves_biases_to_the_gradient():
    model = small_model()
    before = deepcopy(model.state_dict())
    set_gradients(model)
    settings = OptimizerSettings(
        "adamw", lr=0.1, weight_decay=0.2, schedule="cosine", warmup=1, epochs=4
    )
    Optimizer(model, settings).step(number=2, n_per_epoch=5)
    lr = 0.1 * 0.5
    for name, weight in model.named_parameters():
        shrunk = before[name] * (1 - lr * 0.2) if weight.dim() > 1 else before[name]
        expected = shrunk - lr * weight.grad.sign()  # what Adam's first step comes to
        torch.testing.assert_close(weight.data, expected, rtol=0, atol=1e-6)


def test_default_is_plain_adam():
    model, plain = small_model(), small_model()
    optimizer = Optimizer(model, OptimizerSettings(lr=0.01, beta2=0.9))
    adam = torch.optim.Adam(plain.parameters(), 0.01, (0.9, 0.9))
    for number in range(5):
        set_gradients(model, number)
        set_gradients(plain, number)
        optimizer.step(number, 2)
        adam.step()
    assert all(map(torch.equal, model.parameters(), plain.parameters()))
    assert optimizer.average is None


def test_long_gradients_are_shortened_together_and_short_ones_stay():
    model = small_model()
    set_gradients(model)
    before = [one.grad.clone() for one in model.parameters()]
    norm = torch.cat([gradient.flatten() for gradient in before]).norm()
    assert norm > 2
    Optimizer(model, OptimizerSettings(max_gradient_norm=100)).step(0, 1)
    assert all(map(torch.equal, before, (one.grad for one in model.parameters())))
    Optimizer(model, OptimizerSettings(max_gradient_norm=2)).step(0, 1)
    for gradient, one in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, gradient * (2 / norm), rtol=1e-5, atol=0)


def test_average_follows_the_formula_for_weights_and_running_statistics():
    model = small_model()
    optimizer = Optimizer(model, OptimizerSettings(lr=0.1, ema=0.3))
    expected, states = None, []
    for number in range(6):
        model(torch.full((5, 3), float(number), dtype=torch.float64))
        set_gradients(model, number)
        optimizer.step(number, 3)
        states.append(deepcopy(model.state_dict()))
        decay = min(0.3, (1 + number) / (10 + number))
        expected = {
            name: value
            if expected is None or not value.is_floating_point()
            else decay * expected[name] + (1 - decay) * value
            for name, value in states[-1].items()
        }
    with optimizer.averaged():
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, expected[name])
    for name, value in model.state_dict().items():
        assert torch.equal(value, states[-1][name])
    assert not torch.equal(expected["1.running_mean"], states[-1]["1.running_mean"])


@pytest.mark.parametrize(
    "values",
    [
        {"weight_decay": 0.1},
        {"name": "adamw", "weight_decay": -1.0},
        {"warmup": 4.0, "epochs": 4},
        {"warmup": -1.0},
        {"max_gradient_norm": 0.0},
        {"ema": 1.0},
    ],
)
def test_settings_without_effect_or_sense_are_refused(values):
    name = next(name for name in values if name != "name")
    with pytest.raises(ValueError, match=f"optim.{name}="):
        OptimizerSettings(**values)


def test_an_interrupted_run_goes_on_exactly(overrides, tmp_path):
    config = from_hydra(main.get_xp(overrides).cfg)
    whole = build_solver(config, tmp_path / "whole")
    whole.run()
    assert len(whole.history) == 3
    for _ in range(2):  # each begins with what the last one left
        part = build_solver(config, tmp_path / "parts")
        part.restore()
        part._run_epoch(len(part.history))
        part.save()
    last = build_solver(config, tmp_path / "parts")
    assert last.run() == whole.history
    for name, value in whole.models.state_dict().items():
        assert torch.equal(last.models.state_dict()[name], value), name
        assert torch.equal(last.optimizer.average[name], whole.optimizer.average[name]), name
        assert torch.equal(last.best_state[name], whole.best_state[name]), name


def test_best_state_is_the_averaged_one(overrides):
    solver = build(overrides)
    solver._run_epoch(0)
    with solver.optimizer.averaged():
        assert solver._validate() == solver.history[0]["valid"]
    assert solver._validate() != solver.history[0]["valid"]
    for name, value in solver.optimizer.average.items():
        assert torch.equal(solver.best_state[name], value), name


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ranks_clip_summed_gradients_and_share_one_average(overrides, tmp_path):
    shared = [*overrides, "optim.negatives_scope=all", "optim.batch_norm_scope=all"]
    alone = build([*overrides, "optim.max_batches=1"])
    expected = step(alone)
    norm = torch.cat([one.flatten() for one in expected["gradients"].values()]).norm()
    assert norm == pytest.approx(0.5, rel=1e-4)  # it was longer
    first, second = run_ranks(2, [*shared, "optim.max_batches=1"], tmp_path / "ranks")
    for name, gradient in expected["gradients"].items():
        torch.testing.assert_close(first["gradients"][name], gradient, rtol=1e-4, atol=1e-6)
    for name, value in first["average"].items():
        assert torch.equal(value, second["average"][name]), name
