"""Options of the encoders: each changes something, and what cannot work is refused."""

import inspect
import re
from typing import Any

import pytest
import torch
from small_models import CLIP_CONV, run, shapes_of

from bm.build_models import build_models
from bm.config import from_hydra
from bm.models import DeepMel, SimpleConv
from bm.train import main

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
    "scale": (0.1, {}),
    "merger_per_subject": (True, {}),
    "dropout": (0.5, {}),
    "dropout_rescale": (False, {"dropout": 0.5, "merger_dropout": 0.0, "batch_norm": False}),
    "subsample_meg_channels": (4, {}),
    "n_fft": (8, {}),
    "fft_complex": (False, {"n_fft": 8}),
    "dual_path": (1, {}),
    "transformer": (1, {}),
    "transformer_heads": (4, {"transformer": 1}),
}
ELSEWHERE = {"unseen_subject_mean", "n_axes", "n_learned"}  # tested beside their layers


def test_all_options_are_tested():
    sizes = {"n_sensors", "n_outputs", "n_subjects"}
    assert set(OPTIONS) == set(inspect.signature(SimpleConv).parameters) - sizes - ELSEWHERE


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
        ({"scale": 0.1, "skip": False}, "scale=0.1 is for skip connections"),
        ({"n_fft": 8, "complex_out": False}, "need a head"),
        ({"n_fft": 7}, "n_fft=7 must be an even number"),
        ({"transformer": 1, "transformer_heads": 3}, "transformer_heads=3"),
        ({"subsample_meg_channels": 10}, "there are 9 sensors"),
        ({"n_axes": 3, "merger_pos_dim": 32}, "merger_pos_dim=32 must be twice a cube"),
    ],
)
def test_option_that_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SimpleConv(9, 4, 2, **{**CLIP_CONV, **options})


def test_compact_encoder_has_a_twentieth_of_the_parameters():
    for overrides, n_parameters in (
        (["preset=compact"], 464_048),
        (["preset=compact", "dset.sensor_dimensions=3", "simpleconv.merger_pos_dim=250"], 462_224),
    ):
        model = build_models(from_hydra(main.get_xp(overrides).cfg), 208, 1024, 27)["meg"]
        assert sum(parameter.numel() for parameter in model.parameters()) == n_parameters
        assert 20 < 9_565_054 / n_parameters < 21


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
