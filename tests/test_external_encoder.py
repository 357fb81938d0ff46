"""Encoders by import path: what they are given, what they may give, and errors that help."""

import re
import warnings

import pytest
import torch
from small_models import make_layouts
from torch import Tensor, nn

from bm.build import build_training
from bm.build_models import build_models
from bm.config import from_hydra
from bm.models import ExternalEncoder, build_external
from bm.segments import WindowRule, align_to_delay
from bm.train import main

SIZES = {
    "n_sensors": 5, "n_outputs": 3, "n_subjects": 2, "n_axes": 2, "n_times": 12, "sample_rate": 60.0
}  # fmt: skip
INDEX = torch.tensor([1, 0])


class Telling(nn.Module):
    """Says what it was given."""

    def __init__(self, n_sensors, n_times, n_outputs, n_subjects, n_axes, sample_rate, own=1.0):
        super().__init__()
        self.given = (n_sensors, n_times, n_outputs, n_subjects, n_axes, sample_rate, own)

    def forward(self, meg: Tensor, layout_index: Tensor, subject_index: Tensor) -> Tensor:
        self.seen = meg, layout_index, subject_index
        return meg[:, :3] + layout_index[:, None, None]


class Giving(nn.Module):
    """Gives whatever it is told to."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.values = torch.arange(24.0)[: torch.Size(shape).numel()].view(shape)

    def forward(self, meg: Tensor) -> Tensor:
        return self.values


def target(kind: type) -> str:
    return f"{__name__}.{kind.__name__}"


def run(encoder: nn.Module) -> Tensor:
    return encoder(torch.ones(2, 5, 12), INDEX, make_layouts(2, 5), INDEX)


def test_encoder_is_given_the_sizes_and_its_own_parameters():
    encoder = build_external(target(Telling), {"own": 4.0}, SIZES)
    assert encoder.encoder.given == (5, 12, 3, 2, 2, 60.0, 4.0)
    assert build_external(target(Telling), {"n_times": 7}, SIZES).encoder.given[1] == 7
    classifier = build_external("small_models.OwnClassifier", {}, SIZES).encoder
    assert classifier.sfreq == 60.0
    assert classifier.linear.in_features == 5 * 12


def test_encoder_is_called_with_what_its_forward_method_names():
    encoder = build_external(target(Telling), {}, SIZES)
    output = run(encoder)
    meg, layout_index, subject_index = encoder.encoder.seen
    assert (meg == 1).all()
    assert torch.equal(layout_index, INDEX)
    assert torch.equal(subject_index, INDEX)
    assert output[:, 0, 0].tolist() == [2.0, 1.0]


def test_one_vector_a_segment_holds_at_every_sample():
    output = run(ExternalEncoder(Giving((2, 3)), 3))
    assert output.shape == (2, 3, 12)
    assert torch.equal(output[..., 0], torch.arange(6.0).view(2, 3))
    assert (output == output[..., :1]).all()


def test_another_rate_is_interpolated():
    output = run(ExternalEncoder(Giving((2, 3, 4)), 3))
    assert output.shape == (2, 3, 12)
    torch.testing.assert_close(output[0, 0, 1:-1:3], torch.arange(4.0))  # centres of the steps
    torch.testing.assert_close(output[0, 0, 1:11].diff(), torch.full((9,), 1 / 3))


@pytest.mark.parametrize("shape", [(2, 4, 3), (3, 3), (6,), (2, 3, 2, 2)])
def test_another_shape_is_refused_with_the_right_one(shape):
    with pytest.raises(ValueError, match=re.escape("[2, 3, 12], or one vector")) as error:
        run(ExternalEncoder(Giving(shape), 3))
    assert f"Giving gave {list(shape)} for 2 segments of 12 samples" in str(error.value)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("Telling", {}, "should be package.module.Class"),
        ("no_such_package.Encoder", {}, "can't be imported (No module named 'no_such_package')"),
        (f"{__name__}.Tellin", {}, "Did you mean 'Telling'?"),
        (f"{__name__}.target", {}, "does not exist"),  # a function
        (f"{__name__}.Telling", {"owm": 1}, "Did you mean 'own'?"),
        (f"{__name__}.Giving", {}, "needs shape: set it in encoder.params"),
    ],
)
def test_encoder_that_cannot_be_built_is_refused(name, params, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_external(name, params, SIZES)


def test_configured_encoder_is_built_for_the_segments_of_the_experiment():
    name = "small_models.OwnClassifier"
    config = from_hydra(main.get_xp([f"encoder.target={name}"]).cfg)
    model = build_models(config, n_sensors=6, n_features=7, n_subjects=2)["meg"]
    training = build_training(config, "cpu")
    segments = torch.zeros(1, 6, WindowRule().n_times(training.sample_rate))
    meg, _ = align_to_delay(segments, segments, training.delay, training.sample_rate)
    assert meg.shape[-1] == 343
    assert model(meg, INDEX[:1], make_layouts(2, 6), INDEX[:1]).shape == (1, 7, 343)
    assert model.encoder.sfreq == 120


def braindecode_models():
    """braindecode's, where it is installed and its torchaudio can be imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import braindecode.models
        except (ImportError, OSError) as error:
            pytest.skip(f"braindecode can't be imported: {error}")
    return braindecode.models


@pytest.mark.parametrize("name", ["EEGNet", "ShallowFBCSPNet", "Deep4Net", "EEGConformer"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_models_of_braindecode_are_encoders(name):
    assert hasattr(braindecode_models(), name)
    torch.manual_seed(0)
    sizes = {**SIZES, "n_sensors": 9, "n_times": 343, "sample_rate": 120.0}
    model = build_external(f"braindecode.models.{name}", {}, sizes)
    meg = torch.randn(2, 9, 343)
    output = model(meg, INDEX, make_layouts(2, 9), INDEX)
    assert output.shape == (2, 3, 343)
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
