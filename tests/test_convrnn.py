"""The encoder that goes both ways: what it computes, what goes in, how it is configured."""

from typing import Any

import pytest
import torch
from helpers import with_value
from omegaconf import OmegaConf
from torch import nn

from bm.build_models import build_models
from bm.config import Config, from_dict, to_dict
from bm.models import ConvRNN
from bm.train import main

ZERO = torch.zeros(2, dtype=torch.long)
LAYOUTS = torch.zeros(1, 3, 2)


def configured(model: str, **changes: Any) -> Config:
    """Configuration of a published model file, some keys changed."""
    values = OmegaConf.to_container(main.get_xp([f"model={model}"]).cfg)
    for section in ("dora", "hydra"):
        values.pop(section, None)
    for key, value in changes.items():
        values = with_value(values, key.replace("__", "."), value)
    return from_dict(values)


def test_output_is_that_of_the_recipe():
    torch.manual_seed(0)
    model = ConvRNN(3, 4, 2, hidden=5, depth=2, lstm=1, subject_dim=2, flip_lstm=True).double()
    meg = torch.randn(2, 3, 10, dtype=torch.float64)
    subjects = torch.tensor([1, 0])
    x = nn.functional.pad(meg, (0, 2))  # to a multiple of 4
    for layer in model.encoders["meg"].sequence:
        padded = nn.functional.pad(x, (1, 1))
        steps = [
            torch.einsum("bct,oct->bo", padded[..., 2 * k : 2 * k + 4], layer[0].weight)
            for k in range(x.shape[-1] // 2)
        ]
        x = torch.stack(steps, dim=-1) + layer[0].bias[:, None]
        x = x.clamp(min=0)
    vectors = model.subject_embedding.embedding.weight[subjects]
    x = torch.cat([x, vectors[:, :, None].expand(-1, -1, 3)], dim=1)
    hidden, cell, outputs = torch.zeros(2, 5).double(), torch.zeros(2, 5).double(), [None] * 3
    lstm = model.lstm
    for step in (2, 1, 0):  # from the end to the beginning
        gates = x[..., step] @ lstm.weight_ih_l0.T + hidden @ lstm.weight_hh_l0.T
        into, forget, new, out = (gates + lstm.bias_ih_l0 + lstm.bias_hh_l0).chunk(4, dim=1)
        cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
        outputs[step] = hidden
    y = torch.stack(outputs, dim=-1)
    y = torch.einsum("oc,bct->bot", model.linear.weight[..., 0], y) + model.linear.bias[:, None]
    for index, layer in enumerate(model.decoder.sequence):
        weight, bias = layer[0].weight, layer[0].bias
        spread = torch.zeros(2, weight.shape[1], 2 * y.shape[-1] + 2, dtype=torch.float64)
        for step in range(y.shape[-1]):
            spread[..., 2 * step : 2 * step + 4] += torch.einsum(
                "bc,cok->bok", y[..., step], weight
            )
        y = spread[..., 1:-1] + bias[:, None]
        y = y.clamp(min=0) if index == 0 else y
    output = model(meg, subjects, LAYOUTS, ZERO)
    torch.testing.assert_close(output, y[..., :10])
    assert output.std() > 0.001


def test_encoding_sees_features_everywhere_and_the_beginning_of_the_brain_signal():
    torch.manual_seed(0)
    options = {"lstm": 1, "bidirectional_lstm": True, "subject_dim": 0, "relu_leakiness": 0.1}
    model = ConvRNN(3, 3, 1, 6, 2, 4, **options).double()
    meg = torch.randn(2, 3, 24, dtype=torch.float64, requires_grad=True)
    features = torch.randn(2, 2, 24, dtype=torch.float64, requires_grad=True)
    prompt = meg * (torch.arange(24) < 8)
    model(prompt, ZERO, LAYOUTS, ZERO, features)[..., -1].sum().backward()
    assert (features.grad != 0).any(dim=1).all()
    assert (meg.grad[..., :8] != 0).any()
    assert (meg.grad[..., 8:] == 0).all()


def test_published_decoder_goes_both_ways_in_time():
    config = configured("decoder_convrnn")
    model = build_models(config, n_sensors=20, n_features=7, n_subjects=3)["meg"]
    assert model.lstm.bidirectional
    assert (model.lstm.hidden_size, model.lstm.num_layers) == (512, 4)
    assert model(torch.zeros(1, 20, 361), ZERO[:1], LAYOUTS, ZERO[:1]).shape == (1, 7, 361)


def test_published_encoder_gives_sensors_from_features():
    config = configured("convrnn")
    model = build_models(config, n_sensors=20, n_features=7, n_subjects=3)["meg"]
    assert model.lstm.hidden_size == 512 + 12
    inputs = torch.zeros(1, 20, 361), ZERO[:1], LAYOUTS, ZERO[:1]
    assert model(*inputs, torch.zeros(1, 7, 361)).shape == (1, 20, 361)
    wider = configured("convrnn", convrnn__hidden__features=20)
    assert build_models(wider, 20, 7, 3)["meg"].lstm.hidden_size == 512 + 20
    for features in (None, torch.zeros(1, 7, 361)):
        decoder = build_models(configured("decoder_convrnn"), 20, 7, 3)["meg"]
        wrong = model if features is None else decoder
        with pytest.raises(ValueError, match="Features go in where, and only where"):
            wrong(*inputs, features)


def test_what_an_encoder_needs_is_asked_for():
    with pytest.raises(ValueError, match=r"convrnn\.hidden\.features isn't set"):
        build_models(configured("convrnn", convrnn__hidden__features=None), 20, 7, 3)
    with pytest.raises(ValueError, match=r"convrnn\.hidden\.meg isn't set"):
        build_models(configured("convrnn", convrnn__hidden__meg=None), 20, 7, 3)
    with pytest.raises(ValueError, match="task.type=encode needs an encoder that sees features"):
        build_models(configured("clip_conv", task__type="encode"), 20, 7, 3)
    assert to_dict(configured("convrnn"))["convrnn"]["lstm"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 1}, "kernel_size=1 must be at least stride=2"),
        ({"embedding_location": ["output"]}, r"embedding_location=\['output'\]: choose input or"),
        ({"embedding_location": []}, r"embedding_location=\[\]"),
        ({"linear_out": True, "complex_out": True}, "two different heads"),
        ({"subject_layers": True, "subject_layers_dim": "output"}, "subject_layers_dim='output'"),
    ],
)
def test_option_that_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConvRNN(3, 4, 2, hidden=5, **options)
