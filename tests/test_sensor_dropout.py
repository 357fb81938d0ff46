"""Sensors that are left out before anything else: around a random point, or for good."""

import pytest
import torch
from small_models import CLIP_CONV, make_layouts

from bm.core.layout import NO_POSITION
from bm.models import SimpleConv
from bm.models.sensors import SensorDropout, SensorSubset


def test_sensors_near_one_random_point_are_silent_in_the_whole_batch():
    dropout = SensorDropout(0.3, rescale=False).train()
    layouts, index = make_layouts(2, 40), torch.tensor([1, 0, 1])
    meg = torch.randn(3, 40, 5)
    torch.manual_seed(3)
    centre = torch.rand(2)
    torch.manual_seed(3)
    output = dropout(meg, layouts, index)
    near = (layouts - centre).norm(dim=-1) <= 0.3
    near[:, 38:] = False  # these have no position
    assert 0 < near.sum() < near.numel()
    assert torch.equal(output, meg.masked_fill(near[index][:, :, None], 0))
    assert torch.equal(dropout.eval()(meg, layouts, index), meg)


@pytest.mark.parametrize("n_axes", [2, 3])
def test_mean_over_draws_is_what_it_is_without_dropout(n_axes):
    torch.manual_seed(0)
    layouts = make_layouts(1, 30, n_axes=n_axes)
    meg, index = torch.ones(1, 30, 1), torch.zeros(1, dtype=torch.long)
    means = {}
    for rescale in (True, False):
        dropout = SensorDropout(0.3, rescale).train()
        draws = [dropout(meg, layouts, index)[0, :, 0] for _ in range(1000)]
        means[rescale] = torch.stack(draws).mean(dim=0)
    torch.testing.assert_close(means[True], torch.ones(30), atol=0.1, rtol=0)
    assert means[False][:28].mean() < 0.95
    assert (means[False][28:] == 1).all()  # without a position


def test_dropout_of_every_sensor_is_silence_and_no_nan():
    dropout = SensorDropout(3.0).train()
    layouts = make_layouts(1, 9, n_missing=0)
    output = dropout(torch.ones(1, 9, 4), layouts, torch.zeros(1, dtype=torch.long))
    assert (output == 0).all()


def test_so_many_sensors_of_each_layout_are_kept_and_always_the_same():
    layouts = make_layouts(3, 20, n_missing=4)
    layouts[1, :10] = NO_POSITION  # only 6 are left
    subset = SensorSubset(8, 20)
    meg = torch.rand(4, 20, 3) + 1
    index = torch.tensor([0, 1, 2, 2])
    kept, places = subset(meg, layouts, index)
    assert ((places != NO_POSITION).all(dim=-1).sum(dim=-1) == torch.tensor([8, 6, 8])).all()
    assert ((kept != 0).all(dim=-1) == (places[index] != NO_POSITION).all(dim=-1)).all()
    assert torch.equal(kept[kept != 0], meg[kept != 0])
    assert torch.equal(SensorSubset(8, 20)(meg, layouts, index)[0], kept)
    fewer, _ = SensorSubset(5, 20)(meg, layouts, index)
    assert ((fewer == 0) | (kept != 0)).all()  # a smaller subset lies within a larger one


def test_subset_of_sensors_without_positions_is_a_subset_all_the_same():
    layouts = torch.full((1, 12, 2), NO_POSITION)
    kept, _ = SensorSubset(5, 12)(torch.ones(1, 12, 3), layouts, torch.zeros(1, dtype=torch.long))
    assert kept[0, :, 0].sum() == 5


@pytest.mark.parametrize("merger", [True, False])
def test_sensors_outside_of_the_subset_have_no_influence(merger):
    torch.manual_seed(0)
    options = {**CLIP_CONV, "subsample_meg_channels": 4, "merger": merger}
    model = SimpleConv(9, 4, 2, **options).eval()
    meg, layouts = torch.randn(1, 9, 40), make_layouts(1, 9, n_missing=0)
    zero = torch.zeros(1, dtype=torch.long)
    before = model(meg, zero, layouts, zero)
    with_influence = []
    for sensor in range(9):
        other = meg.clone()
        other[:, sensor] += 1
        with_influence.append(not torch.equal(model(other, zero, layouts, zero), before))
    assert sum(with_influence) == 4
