"""Layers of the encoders: subjects, and the stack of dilated convolutions."""

import numpy as np
import pytest
import torch
from small_models import CLIP_CONV, make_layouts
from torch import nn

from bm.models import SimpleConv
from bm.models.layers import ConvSequence, SubjectEmbedding, SubjectLayers, of_subjects


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


def test_unseen_subject_gets_the_mean_of_the_learned_ones():
    torch.manual_seed(0)
    options = {**CLIP_CONV, "subject_dim": 3, "merger_per_subject": True}
    model = SimpleConv(9, 4, 4, **options, unseen_subject_mean=True, n_learned=3).double().eval()
    mean = SimpleConv(9, 4, 1, **options).double().eval()
    state = model.state_dict()
    tables = ("merger.heads", "subject_layers.weights", "subject_embedding.embedding.weight")
    for name in tables:
        state[name] = state[name][:3].mean(dim=0, keepdim=True)  # the last was never trained
    mean.load_state_dict(state)
    meg, layouts = torch.randn(2, 9, 30, dtype=torch.float64), make_layouts(2, 9).double()
    unseen, index = torch.tensor([-1, -1]), torch.arange(2)
    expected = mean(meg, torch.zeros(2, dtype=torch.long), layouts, index)
    torch.testing.assert_close(model(meg, unseen, layouts, index), expected)
    known = model(meg, torch.tensor([3, 0]), layouts, index)
    assert (known - expected).abs().max() > 1e-5


def test_unseen_subject_is_refused_where_there_is_nothing_to_fall_back_on():
    model = SimpleConv(9, 4, 2, **CLIP_CONV).eval()
    with pytest.raises(ValueError, match="unseen_subject_mean"):
        model(
            torch.zeros(2, 9, 30), torch.tensor([0, -1]), make_layouts(1, 9), torch.zeros(2).long()
        )


def test_layer_scale_multiplies_what_is_added_to_the_skip_connection():
    torch.manual_seed(0)
    scaled = ConvSequence([5, 5, 5, 4], nn.ReLU, scale=0.25).eval()
    plain = ConvSequence([5, 5, 5, 4], nn.ReLU).eval()
    names = [name for name in scaled.state_dict() if "factors" in name]
    assert names == ["sequence.0.3.factors", "sequence.1.3.factors"]  # the third has no skip
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if k not in names})
    x = torch.randn(2, 5, 20)
    y = x
    for index in range(2):
        y = y + 0.25 * plain.sequence[index](y)
    torch.testing.assert_close(scaled(x), plain.sequence[2](y))


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


def test_gradients_of_subjects_have_the_same_bits_on_several_threads():
    table = torch.randn(4, 64, 64, requires_grad=True)
    index = torch.arange(256) % 4
    weights = torch.randn(256, 64, 64)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = [
            torch.autograd.grad((of_subjects(table, index) * weights).sum(), table)[0]
            for _ in range(10)
        ]
    finally:
        torch.set_num_threads(n_threads)
    assert all(torch.equal(found[0], other) for other in found[1:])
