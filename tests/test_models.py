"""Brain encoder: published numbers, sizes and names, and what each part does."""

import inspect
import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bm.build import build_models
from bm.config import from_hydra
from bm.core.layout import NO_POSITION
from bm.models import SimpleConv
from bm.models.deepmel import DeepMel
from bm.models.layers import ConvSequence, SubjectEmbedding, SubjectLayers
from bm.models.merger import FourierEmbedding, SpatialAttention
from bm.train import main

CLIP_CONV: dict[str, Any] = {
    "hidden": 16,
    "depth": 10,
    "kernel_size": 3,
    "dilation_period": 5,
    "skip": True,
    "glu": 2,
    "glu_context": 1,
    "batch_norm": True,
    "gelu": True,
    "merger": True,
    "merger_channels": 12,
    "merger_pos_dim": 32,
    "initial_linear": 12,
    "subject_layers": True,
    "subject_dim": 0,
    "complex_out": True,
}


@pytest.fixture(scope="module")
def golden(root) -> dict[str, Tensor]:
    with np.load(root / "tests" / "golden" / "published_numbers.npz") as numbers:
        return {name: torch.from_numpy(numbers[name]) for name in numbers}


def make_layouts(n_layouts: int, n_sensors: int, n_missing: int = 2, seed: int = 0) -> Tensor:
    """Positions in 0..1; the last sensors have none."""
    layouts = torch.rand(n_layouts, n_sensors, 2, generator=torch.Generator().manual_seed(seed))
    layouts[:, n_sensors - n_missing :] = NO_POSITION
    return layouts


def run(model: SimpleConv, n_times: int = 30, n_sensors: int = 9, seed: int = 1) -> Tensor:
    """Output for three segments of two subjects, recorded with two layouts."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    meg = torch.randn(3, n_sensors, n_times, generator=generator).to(dtype)
    layouts = make_layouts(2, n_sensors).to(dtype)
    torch.manual_seed(seed)  # dropout
    return model(meg, torch.tensor([0, 1, 0]), layouts, torch.tensor([0, 0, 1]))


# Published numbers


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


def conv_block(place: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    vectors = ["0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    return {
        f"{place}.0.weight": (n_out, n_in, 3),
        **{f"{place}.{name}": (n_out,) for name in vectors},
        f"{place}.1.num_batches_tracked": (),
    }


def gate(place: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{place}.0.weight": (2 * width, width, 3), f"{place}.0.bias": (2 * width,)}


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


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


# Spatial attention


def reference_attention(heads: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Weights [n_virtual, C] from the formula, number by number, in double precision."""
    n = math.isqrt(heads.shape[1] // 2)
    period = 1 + 2 * 0.2
    scores = np.full((len(heads), len(positions)), -np.inf)
    for sensor, (x, y) in enumerate(positions):
        if x < 0 and y < 0:
            continue
        phases = [
            2 * math.pi * (i * (float(x) + 0.2) + j * (float(y) + 0.2)) / period
            for i, j in itertools.product(range(n), range(n))
        ]
        waves = [math.cos(phase) for phase in phases] + [math.sin(phase) for phase in phases]
        for head in range(len(heads)):
            scores[head, sensor] = sum(
                float(a) * b for a, b in zip(heads[head], waves, strict=True)
            )
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    attention = SpatialAttention(5, 72).double().eval()
    layouts = make_layouts(2, 11).double()
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


def test_sensor_without_position_has_no_weight_and_no_influence():
    torch.manual_seed(0)
    model = SimpleConv(9, 4, 2, **CLIP_CONV).eval()
    layouts = make_layouts(2, 9, n_missing=3)
    weights = model.merger.attention(layouts)
    assert (weights[:, :, 6:] == 0).all()
    assert (weights[:, :, :6] > 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 12))
    meg = torch.randn(2, 9, 40)
    other = meg.clone()
    other[:, 6:] = 1e6
    indices = torch.arange(2), layouts, torch.arange(2)
    assert torch.equal(model(meg, *indices), model(other, *indices))


@pytest.mark.parametrize("training", [False, True])
def test_layout_without_any_position_gives_nothing_and_no_nan(training):
    model = SimpleConv(9, 4, 2, **CLIP_CONV).train(training)
    layouts = torch.cat([make_layouts(1, 9), torch.full((1, 9, 2), NO_POSITION)])
    assert (model.merger.attention(layouts)[1] == 0).all()
    output = model(torch.randn(2, 9, 40), torch.arange(2), layouts, torch.arange(2))
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_order_of_the_sensors_does_not_matter():
    torch.manual_seed(0)
    model = SimpleConv(9, 4, 2, **CLIP_CONV).eval()
    layouts, meg = make_layouts(1, 9), torch.randn(2, 9, 40)
    order = torch.randperm(9)
    subjects, layout = torch.arange(2), torch.zeros(2, dtype=torch.long)
    torch.testing.assert_close(
        model(meg[:, order], subjects, layouts[:, order], layout),
        model(meg, subjects, layouts, layout),
    )


def test_segments_of_several_layouts_and_subjects_come_out_as_alone():
    torch.manual_seed(0)
    model = SimpleConv(9, 4, 3, **CLIP_CONV).eval()
    layouts, meg = make_layouts(3, 9), torch.randn(5, 9, 40)
    subjects, layout = torch.tensor([2, 0, 1, 0, 2]), torch.tensor([1, 0, 2, 2, 1])
    together = model(meg, subjects, layouts, layout)
    for index in range(5):
        only = layouts[layout[index]][None]
        alone = model(meg[index][None], subjects[index][None], only, torch.zeros(1).long())
        torch.testing.assert_close(together[index][None], alone)


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


# Subjects


def test_each_segment_goes_through_the_matrix_of_its_subject():
    torch.manual_seed(0)
    layers = SubjectLayers(4, 6, 3)
    x, subjects = torch.randn(5, 4, 7), torch.tensor([2, 0, 0, 1, 2])
    y = layers(x, subjects).detach().numpy()
    for index, subject in enumerate(subjects.tolist()):
        matrix = layers.weights[subject].detach().numpy()
        for time in range(7):
            expected = matrix.T @ x[index, :, time].numpy()
            np.testing.assert_allclose(y[index, :, time], expected, rtol=1e-4, atol=1e-5)
    before = layers(x, subjects)
    with torch.no_grad():
        layers.weights[1] += 1
    changed = (layers(x, subjects) != before).any(dim=2).any(dim=1)
    assert changed.tolist() == [False, False, False, True, False]


def test_subject_layers_begin_random_or_as_identity():
    torch.manual_seed(0)
    assert SubjectLayers(270, 270, 5).weights.std().item() == pytest.approx(270**-0.5, rel=0.01)
    x = torch.randn(2, 6, 5)
    assert torch.equal(SubjectLayers(6, 6, 3, init_identity=True)(x, torch.tensor([0, 2])), x)
    with pytest.raises(ValueError, match="identity from 6 to 4"):
        SubjectLayers(6, 4, 3, init_identity=True)


def test_scale_of_the_embedding_changes_its_learning_and_not_its_start():
    x, subjects = torch.randn(2, 3, 5), torch.tensor([1, 0])
    outputs, gradients = [], []
    for scale in (1.0, 10.0):
        torch.manual_seed(0)
        layer = SubjectEmbedding(2, 4, scale)
        output = layer(x, subjects)
        output.sum().backward()
        outputs.append(output)
        gradients.append(layer.embedding.weight.grad)
    assert outputs[0].shape == (2, 7, 5)
    assert torch.equal(outputs[0][:, :3], x)
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(10 * gradients[0], gradients[1])


# Convolutions


def test_receptive_field_is_135_samples():
    torch.manual_seed(0)
    model = SimpleConv(9, 4, 2, **CLIP_CONV).double().eval()
    layouts = make_layouts(1, 9).double()
    meg = torch.randn(1, 9, 343, dtype=torch.float64, requires_grad=True)
    model(meg, torch.zeros(1).long(), layouts, torch.zeros(1).long())[..., 171].sum().backward()
    seen = (meg.grad != 0).any(dim=1)[0].nonzero()[:, 0]
    assert (seen.min().item(), seen.max().item()) == (171 - 67, 171 + 67)
    assert len(seen) == 135


def test_convolutions_are_those_of_the_recipe():
    torch.manual_seed(0)
    stack = ConvSequence([3, 5, 5, 5], nn.GELU, 3, 2, 2, True, True, 2, 1).eval()
    x = torch.randn(2, 3, 20)
    y = x
    for layer, dilation in enumerate((1, 2, 1)):
        convolution, norm = stack.sequence[layer][0], stack.sequence[layer][1]
        z = nn.functional.conv1d(
            y, convolution.weight, convolution.bias, padding=dilation, dilation=dilation
        )
        z = nn.functional.gelu(norm(z))
        y = z if layer == 0 else y + z  # the first one changes the number of channels
        if layer == 1:
            gate = stack.glus["1"][0]
            a, b = nn.functional.conv1d(y, gate.weight, gate.bias, padding=1).chunk(2, dim=1)
            y = a * b.sigmoid()
    torch.testing.assert_close(stack(x), y)


def test_last_layer_without_activation_is_a_convolution_alone():
    stack = ConvSequence([3, 5, 4], nn.ReLU, activation_on_last=False, dropout=0.5)
    assert [type(part).__name__ for part in stack.sequence[0]] == [
        "Conv1d", "BatchNorm1d", "ReLU", "Dropout"
    ]  # fmt: skip
    assert [type(part).__name__ for part in stack.sequence[1]] == ["Conv1d"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subject_dim": 3, "subject_layers": False},
        {"linear_out": True, "complex_out": False},
        {"complex_out": False},
    ],
)
def test_gradient_reaches_every_parameter(options):
    torch.manual_seed(0)
    model = SimpleConv(9, 4, 2, **{**CLIP_CONV, **options})
    run(model, n_times=60).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


# Option: another value, and what has to be set beside it for the option to matter.
OPTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "hidden": (18, {}),
    "depth": (4, {}),
    "kernel_size": (5, {}),
    "dilation_growth": (3, {}),
    "dilation_period": (2, {}),
    "skip": (False, {}),
    "glu": (3, {}),
    "glu_context": (0, {}),
    "batch_norm": (False, {}),
    "conv_dropout": (0.5, {}),
    "dropout_input": (0.5, {}),
    "gelu": (False, {}),
    "relu_leakiness": (0.3, {"gelu": False}),
    "merger": (False, {}),
    "merger_channels": (7, {}),
    "merger_pos_dim": (18, {}),
    "merger_dropout": (0.5, {}),
    "initial_linear": (0, {}),
    "initial_depth": (2, {}),
    "initial_nonlin": (True, {}),
    "subject_layers": (False, {}),
    "subject_layers_dim": ("hidden", {}),
    "subject_layers_id": (True, {}),
    "subject_dim": (3, {}),
    "embedding_scale": (10.0, {"subject_dim": 3}),
    "linear_out": (True, {"complex_out": False}),
    "complex_out": (False, {}),
}


def test_all_options_are_tested():
    sizes = {"n_sensors", "n_outputs", "n_subjects"}
    assert set(OPTIONS) == set(inspect.signature(SimpleConv).parameters) - sizes


@pytest.mark.parametrize("option", OPTIONS)
def test_option_changes_the_weights_or_the_output(option):
    value, context = OPTIONS[option]
    models = []
    for changes in (context, {**context, option: value}):
        torch.manual_seed(0)
        models.append(SimpleConv(9, 4, 2, **{**CLIP_CONV, **changes}))
    shapes = [shapes_of(model) for model in models]
    states = [list(model.state_dict().values()) for model in models]
    outputs = [run(model) for model in models]
    assert all(output.shape == (3, 4, 30) for output in outputs)
    same_weights = shapes[0] == shapes[1] and all(map(torch.equal, *states))
    assert not (same_weights and torch.equal(*outputs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"linear_out": True}, "two different heads"),
        ({"kernel_size": 4}, "kernel_size=4 must be odd"),
        ({"merger_pos_dim": 100}, "merger_pos_dim=100 must be twice a square"),
        ({"subject_layers_dim": "output"}, "subject_layers_dim='output'"),
        ({"subject_layers_dim": "hidden", "subject_layers_id": True}, "identity from 12 to 16"),
    ],
)
def test_option_that_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SimpleConv(9, 4, 2, **{**CLIP_CONV, **options})


def test_deep_mel_must_keep_time():
    with pytest.raises(ValueError, match="stride=2 must be 1"):
        DeepMel(8, stride=2)


DEEP_MEL_OPTIONS = {
    "n_hidden_channels": 8,
    "n_hidden_layers": 3,
    "n_out_channels": 8,
    "kernel": 5,
    "dilation_growth": 3,
    "dilation_period": 2,
    "batch_norm": False,
    "activation_on_last": True,
    "skip": False,
    "glu_context": 0,
    "glu": 3,
}


@pytest.mark.parametrize("option", DEEP_MEL_OPTIONS)
def test_option_of_deep_mel_changes_the_weights_or_the_output(option):
    plain = {"n_hidden_channels": 6, "n_hidden_layers": 4, "n_out_channels": 7}
    models = []
    for changes in ({}, {option: DEEP_MEL_OPTIONS[option]}):
        torch.manual_seed(0)
        models.append(DeepMel(5, **{**plain, **changes}))
    outputs = [model(torch.arange(150.0).sin().view(1, 5, 30)) for model in models]
    same_shapes = shapes_of(models[0]) == shapes_of(models[1])
    assert not same_shapes or not torch.equal(*outputs)


def test_all_options_of_deep_mel_are_tested():
    others = {"n_in_channels", "stride"}
    assert set(DEEP_MEL_OPTIONS) == set(inspect.signature(DeepMel).parameters) - others
