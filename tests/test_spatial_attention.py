"""Spatial attention: the formula, masked sensors, layouts side by side, dropout."""

import itertools
import math

import numpy as np
import pytest
import torch
from small_models import CLIP_CONV, make_layouts, run

from bm.core.layout import NO_POSITION
from bm.models import SimpleConv
from bm.models.merger import FourierEmbedding, SpatialAttention


def reference_attention(heads: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Weights [n_virtual, C] from the formula, number by number, in double precision."""
    n_axes = positions.shape[1]
    n = round((heads.shape[1] / 2) ** (1 / n_axes))
    period = 1 + 2 * 0.2
    scores = np.full((len(heads), len(positions)), -np.inf)
    for sensor, place in enumerate(positions.tolist()):
        if max(place) < 0:
            continue
        phases = [
            2 * math.pi * sum(k * (x + 0.2) for k, x in zip(wave, place, strict=True)) / period
            for wave in itertools.product(range(n), repeat=n_axes)
        ]
        waves = [math.cos(phase) for phase in phases] + [math.sin(phase) for phase in phases]
        for head in range(len(heads)):
            scores[head, sensor] = sum(
                float(a) * b for a, b in zip(heads[head], waves, strict=True)
            )
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("n_axes", "dimension"), [(2, 72), (3, 54)])
def test_attention_is_that_of_the_formula(n_axes, dimension):
    torch.manual_seed(0)
    attention = SpatialAttention(5, dimension, n_axes=n_axes).double().eval()
    layouts = make_layouts(2, 11, n_axes=n_axes).double()
    meg = torch.randn(2, 11, 7, dtype=torch.float64)
    with torch.no_grad():
        attention.heads *= 5  # far from uniform
        weights = attention.attention(layouts).numpy()
        mixed = attention(meg, layouts, torch.tensor([1, 0])).numpy()
    for layout in range(2):
        expected = reference_attention(attention.heads.detach().numpy(), layouts[layout].numpy())
        np.testing.assert_allclose(weights[layout], expected, atol=1e-12)
        assert expected.max() > 0.5
        np.testing.assert_allclose(
            mixed[1 - layout], expected @ meg[1 - layout].numpy(), atol=1e-12
        )


@pytest.mark.parametrize("n_subjects", [None, 3])
def test_layouts_that_are_not_in_the_batch_change_nothing(n_subjects):
    torch.manual_seed(0)
    attention = SpatialAttention(5, 32, n_subjects=n_subjects).double()
    layouts, meg = make_layouts(9, 8).double(), torch.randn(2, 8, 7, dtype=torch.float64)
    outputs = []
    for chosen, index in ((layouts, [7, 2]), (layouts[[2, 7]], [1, 0])):
        torch.manual_seed(1)  # dropout
        outputs.append(attention(meg, chosen, torch.tensor(index), torch.tensor([0, 2])))
    torch.testing.assert_close(*outputs)


def test_attention_of_its_own_for_each_subject():
    torch.manual_seed(0)
    attention = SpatialAttention(5, 32, n_subjects=3).double().eval()
    layouts, meg = make_layouts(2, 9).double(), torch.randn(6, 9, 7, dtype=torch.float64)
    layout_index, subjects = torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([2, 0, 2, 2, 1, 0])
    together = attention(meg, layouts, layout_index, subjects)
    shared = SpatialAttention(5, 32).double().eval()
    mean = torch.zeros(2, 5, 9, dtype=torch.float64)
    for subject in range(3):
        shared.heads.data = attention.heads.data[subject]
        mean += shared.attention(layouts) / 3
        of_subject = subjects == subject
        alone = shared(meg[of_subject], layouts, layout_index[of_subject])
        torch.testing.assert_close(together[of_subject], alone)
    torch.testing.assert_close(attention.attention(layouts), mean)
    with pytest.raises(ValueError, match="needs the subjects"):
        attention(meg, layouts, layout_index)


def test_embedding_of_a_position_has_the_published_size_and_period():
    embedding = FourierEmbedding(2048)
    positions = torch.rand(6, 2, dtype=torch.float64)
    assert embedding(positions).shape == (6, 2048)
    torch.testing.assert_close(embedding(positions + 1.4), embedding(positions))
    assert (embedding(positions + 1.0) - embedding(positions)).norm() > 1  # borders differ
    torch.testing.assert_close(
        embedding(positions).square().sum(dim=1), torch.full((6,), 1024.0, dtype=torch.float64)
    )


def test_heads_begin_small_and_random():
    torch.manual_seed(0)
    heads = SpatialAttention(270, 2048).heads
    assert heads.std().item() == pytest.approx(2048**-0.5, rel=0.01)
    assert abs(heads.mean().item()) < 1e-3


def test_sensor_without_position_has_no_weight():
    attention = SpatialAttention(12, 32).eval()
    weights = attention.attention(make_layouts(2, 9, n_missing=3))
    assert (weights[:, :, 6:] == 0).all()
    assert (weights[:, :, :6] > 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 12))


@pytest.mark.parametrize("training", [False, True])
def test_layout_without_any_position_gives_nothing_and_no_nan(training):
    model = SimpleConv(9, 4, 2, **CLIP_CONV).train(training)
    layouts = torch.cat([make_layouts(1, 9), torch.full((1, 9, 2), NO_POSITION)])
    assert (model.merger.attention(layouts)[1] == 0).all()
    output = model(torch.randn(2, 9, 40), torch.arange(2), layouts, torch.arange(2))
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_dropout_leaves_out_the_sensors_near_one_random_point():
    attention = SpatialAttention(4, 32, dropout=0.3)
    layouts = make_layouts(2, 40)
    torch.manual_seed(3)
    centre = torch.rand(2)
    torch.manual_seed(3)
    dropped = (attention.attention(layouts) == 0).all(dim=1)
    absent = (layouts == NO_POSITION).all(dim=-1)
    near = (layouts - centre).norm(dim=-1) <= 0.3
    assert torch.equal(dropped, near | absent)
    assert 0 < (near & ~absent).sum() < near.numel()
    assert torch.equal(attention.eval().attention(layouts) == 0, absent[:, None].expand(-1, 4, -1))
    attention = SpatialAttention(4, 32, dropout=0.0)
    assert torch.equal(attention.attention(layouts) == 0, absent[:, None].expand(-1, 4, -1))


def test_dropout_of_every_sensor_is_no_dropout():
    model = SimpleConv(9, 4, 2, **{**CLIP_CONV, "merger_dropout": 2.0}).train()
    layouts = make_layouts(1, 9)
    weights = model.merger.attention(layouts)
    assert torch.equal(weights, model.merger.eval().attention(layouts))
    output = run(model.train())
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
