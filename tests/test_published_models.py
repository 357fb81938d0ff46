"""Models of the paper: published numbers, sizes, names of parameters."""

import numpy as np
import pytest
import torch
from small_models import CLIP_CONV, shapes_of
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bm.build_models import build_models
from bm.config import from_hydra
from bm.models import DeepMel, SimpleConv
from bm.train import main


@pytest.fixture(scope="module")
def golden(root) -> dict[str, Tensor]:
    with np.load(root / "tests" / "golden" / "published_numbers.npz") as numbers:
        return {name: torch.from_numpy(numbers[name]) for name in numbers}


def test_output_is_that_of_the_published_model(golden):
    model = SimpleConv(20, 8, 3, **CLIP_CONV).eval()
    weights = {
        name.removeprefix("param/"): tensor for name, tensor in golden.items() if "param/" in name
    }
    model.load_state_dict(weights, strict=True)
    meg, subject_index = golden["meg"], golden["subject_index"]
    with torch.no_grad():
        output = model(meg, subject_index, golden["positions"], torch.arange(2))
    difference = (output - golden["output"]).abs().max() / golden["output"].abs().max()
    assert difference <= 1e-5


@pytest.mark.parametrize(
    ("n_sensors", "n_subjects", "n_parameters"),
    [(208, 27, 9_565_054), (273, 96, 14_595_154), (128, 19, 8_981_854), (60, 33, 10_002_454)],
)
def test_default_configuration_builds_an_encoder_of_the_published_size(
    n_sensors, n_subjects, n_parameters
):
    models = build_models(from_hydra(main.get_xp([]).cfg), n_sensors, 1024, n_subjects)
    assert list(models) == ["meg"]
    assert sum(parameter.numel() for parameter in models.parameters()) == n_parameters


@pytest.mark.parametrize("n_segments", [1, 4])
def test_forward_and_backward_cost_what_the_published_model_costs(n_segments):
    model = build_models(from_hydra(main.get_xp([]).cfg), 208, 1024, 27)["meg"]
    meg, index = torch.randn(n_segments, 208, 343), torch.zeros(n_segments, dtype=torch.long)
    with FlopCounterMode(display=False) as forward:
        model(meg, index, torch.rand(1, 208, 2), index)
    with FlopCounterMode(display=False) as both:
        model(meg, index, torch.rand(1, 208, 2), index).sum().backward()
    costs = [counter.get_total_flops() / n_segments for counter in (forward, both)]
    published = [5.14e9, 15.15e9]
    if n_segments == 1:
        assert costs == pytest.approx(published, rel=0.001)
    else:  # attention is computed once for all that share a layout
        assert all(0.95 < cost / old < 0.99 for cost, old in zip(costs, published, strict=True))


def conv_block(place: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    vectors = ["0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    return {
        f"{place}.0.weight": (n_out, n_in, 3),
        **{f"{place}.{name}": (n_out,) for name in vectors},
        f"{place}.1.num_batches_tracked": (),
    }


def gate(place: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{place}.0.weight": (2 * width, width, 3), f"{place}.0.bias": (2 * width,)}


def test_parameters_have_the_published_names_and_shapes():
    model = build_models(from_hydra(main.get_xp([]).cfg), 208, 1024, 27)["meg"]
    encoder = "encoders.meg"
    expected: dict[str, tuple[int, ...]] = {
        "merger.heads": (270, 2048),
        "initial_linear.0.weight": (270, 270, 1),
        "initial_linear.0.bias": (270,),
        "subject_layers.weights": (27, 270, 270),
        "final.0.weight": (640, 320, 1),
        "final.0.bias": (640,),
        "final.2.weight": (640, 1024, 1),
        "final.2.bias": (1024,),
    }
    for layer in range(10):
        expected |= conv_block(f"{encoder}.sequence.{layer}", 320 if layer else 270, 320)
    for layer in (1, 3, 5, 7, 9):
        expected |= gate(f"{encoder}.glus.{layer}", 320)
    assert shapes_of(model) == expected


def test_deep_mel_has_the_published_size_names_and_shapes():
    cfg = main.get_xp(["feature_model=deep_mel", "dset.features=[MelSpectrum]"]).cfg
    models = build_models(from_hydra(cfg), 208, 120, 27)
    model = models["features"]
    assert isinstance(model, DeepMel)
    assert sum(parameter.numel() for parameter in model.parameters()) == 9_320_128
    expected: dict[str, tuple[int, ...]] = {}
    for layer in range(9):
        expected |= conv_block(f"sequence.{layer}", 320 if layer else 120, 320)
    expected |= {"sequence.9.0.weight": (768, 320, 3), "sequence.9.0.bias": (768,)}
    for layer in (1, 3, 5, 7):
        expected |= gate(f"glus.{layer}", 320)
    assert shapes_of(model) == expected | gate("glus.9", 768)
    assert models["meg"].state_dict()["final.2.bias"].shape == (768,)  # as many as it gives
    assert model(torch.zeros(2, 120, 20)).shape == (2, 768, 20)
