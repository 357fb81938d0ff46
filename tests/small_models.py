"""A small encoder, and what is put into it, for tests of models."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bm.core.layout import NO_POSITION
from bm.models import ConvRNN, DeepMel, SimpleConv, build_external
from bm.models.merger import SpatialAttention

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


def make_layouts(
    n_layouts: int, n_sensors: int, n_missing: int = 2, seed: int = 0, n_axes: int = 2
) -> Tensor:
    """Positions in 0..1; the last sensors have none."""
    generator = torch.Generator().manual_seed(seed)
    layouts = torch.rand(n_layouts, n_sensors, n_axes, generator=generator)
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


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@dataclass(frozen=True)
class Case:
    """A model that the contract of all models is tested with.

    Attributes
    ----------
    build : makes it, small.
    attends : weights sensors by their place; else each sensor has an input of its own.
    n_sensors, n_outputs, n_axes, n_features : sizes that it was built for.
    needs_40 : only takes segments of 40 samples.
    share_seen : of the sensors with a position.
    """

    build: Callable[[], nn.Module]
    attends: bool = True
    n_sensors: int = 9
    n_outputs: int = 4
    n_axes: int = 2
    n_features: int = 0
    needs_40: bool = False
    share_seen: float = 1.0


class Inputs:
    """Segments of three subjects, recorded with two layouts; the last two sensors have no place."""

    def __init__(self, case: Case, n_segments: int, n_times: int = 40):
        generator = torch.Generator().manual_seed(7)
        self.meg = torch.randn(n_segments, case.n_sensors, n_times, generator=generator)
        self.features = None
        if case.n_features:
            shape = n_segments, case.n_features, n_times
            self.features = torch.randn(shape, generator=generator)
        self.layouts = make_layouts(2, case.n_sensors, n_axes=case.n_axes)
        self.subject_index = torch.tensor([0, 1, 2, 1, 0])[:n_segments]
        self.layout_index = torch.tensor([0, 0, 1, 1, 0])[:n_segments]

    def select(self, rows: Sequence[int]) -> "Inputs":
        """Some of the segments."""
        chosen = copy.copy(self)
        for name in ("meg", "features", "subject_index", "layout_index"):
            values = getattr(self, name)
            setattr(chosen, name, None if values is None else values[list(rows)])
        return chosen

    def run(self, model: nn.Module) -> Tensor:
        """Output of a model for these segments."""
        if isinstance(model, DeepMel):
            return model(self.meg)
        inputs = [self.meg, self.subject_index, self.layouts, self.layout_index]
        return model(*inputs, *([] if self.features is None else [self.features]))


class OwnEncoder(nn.Module):
    """An encoder as somebody else would write it, from sensors alone."""

    def __init__(self, n_sensors: int, n_outputs: int, width: int = 6):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(n_sensors, width, 5, padding=2), nn.Tanh(), nn.Conv1d(width, n_outputs, 1)
        )

    def forward(self, meg: Tensor) -> Tensor:
        return self.layers(meg)


class OwnAttending(nn.Module):
    """One that knows where sensors are, made of our parts; at a third of the rate."""

    def __init__(self, n_outputs: int, n_times: int, n_axes: int):
        super().__init__()
        self.attention = SpatialAttention(6, 32, n_axes=n_axes)
        self.of_time = nn.Linear(n_times, n_times // 3)
        self.final = nn.Conv1d(6, n_outputs, 1)

    def forward(self, x: Tensor, layouts: Tensor, layout_index: Tensor) -> Tensor:
        return self.final(self.of_time(self.attention(x, layouts, layout_index)))


class OwnClassifier(nn.Module):
    """One with a vector for each segment, and braindecode's names of the sizes."""

    def __init__(self, n_chans: int, n_times: int, n_outputs: int, sfreq: float = 100.0):
        super().__init__()
        self.sfreq = sfreq
        self.linear = nn.Linear(n_chans * n_times, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


def _external(name: str, **params: Any) -> Callable[[], nn.Module]:
    sizes = {
        "n_sensors": 9, "n_outputs": 4, "n_subjects": 3, "n_axes": 2, "n_times": 40,
        "sample_rate": 120,
    }  # fmt: skip
    return lambda: build_external(f"small_models.{name}", params, sizes)


def _simple_conv(**options: Any) -> Callable[[], nn.Module]:
    return lambda: SimpleConv(9, 4, 3, **{**CLIP_CONV, **options})


def _conv_rnn(n_outputs: int = 4, **options: Any) -> Callable[[], nn.Module]:
    plain = {"hidden": 8, "lstm": 1, "subject_dim": 3, "relu_leakiness": 0.1}
    return lambda: ConvRNN(9, n_outputs, 3, **{**plain, **options})


CASES: dict[str, Case] = {
    "clip_conv": Case(_simple_conv()),
    "no merger": Case(_simple_conv(merger=False), attends=False),
    "merger in 3-D": Case(_simple_conv(n_axes=3, merger_pos_dim=54), n_axes=3),
    "merger per subject": Case(_simple_conv(merger_per_subject=True)),
    "sensor dropout": Case(_simple_conv(dropout=0.2)),
    "fewer sensors": Case(_simple_conv(subsample_meg_channels=4), attends=False, share_seen=4 / 7),
    "subject embedding": Case(_simple_conv(subject_layers=False, subject_dim=3)),
    "no subjects": Case(_simple_conv(subject_layers=False)),
    "unseen subjects": Case(_simple_conv(unseen_subject_mean=True)),
    "no initial linear": Case(_simple_conv(initial_linear=0)),
    "shallow": Case(_simple_conv(depth=2)),
    "deep initial": Case(_simple_conv(initial_depth=2, initial_nonlin=True)),
    "relu": Case(_simple_conv(gelu=False)),
    "no skip": Case(_simple_conv(skip=False)),
    "no glu": Case(_simple_conv(glu=0)),
    "no batch norm": Case(_simple_conv(batch_norm=False, depth=4)),
    "layer scale": Case(_simple_conv(scale=0.1)),
    "linear head": Case(_simple_conv(linear_out=True, complex_out=False)),
    "no head": Case(_simple_conv(complex_out=False)),
    "stft": Case(_simple_conv(n_fft=8, depth=4)),
    "stft magnitude": Case(_simple_conv(n_fft=8, fft_complex=False, depth=4)),
    "dual path": Case(_simple_conv(dual_path=2, depth=4)),
    "transformer": Case(_simple_conv(transformer=1, depth=2, glu=0)),
    "conv rnn": Case(_conv_rnn(), attends=False),
    "conv rnn with subject layers": Case(
        _conv_rnn(subject_layers=True, subject_layers_dim="hidden", embedding_location=["input"]),
        attends=False,
    ),
    "conv rnn back in time": Case(
        _conv_rnn(flip_lstm=True, batch_norm=True, linear_out=True), attends=False
    ),
    "conv rnn both ways": Case(
        _conv_rnn(bidirectional_lstm=True, complex_out=True, kernel_size=5, stride=3),
        attends=False,
    ),
    "conv rnn without lstm": Case(_conv_rnn(lstm=0), attends=False),
    "encoding conv rnn": Case(
        _conv_rnn(n_outputs=9, n_features=5, hidden_features=4),
        attends=False,
        n_outputs=9,
        n_features=5,
    ),
    "own encoder": Case(_external("OwnEncoder", width=5), attends=False),
    "own attending encoder": Case(_external("OwnAttending"), needs_40=True),
    "own classifier": Case(_external("OwnClassifier"), attends=False, needs_40=True),
    "deep mel": Case(
        lambda: DeepMel(9, n_hidden_channels=8, n_hidden_layers=4, n_out_channels=4), attends=False
    ),
}
"""Every model, and every option that changes what it computes."""
