"""Convolutions and LSTM: the encoder that goes both ways, from brain to sound and back."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from bm.models.layers import SubjectEmbedding, SubjectLayers
from bm.models.simpleconv import make_head, width_of

LOCATIONS = ("input", "lstm")


class ConvRNN(nn.Module):
    """Strided convolutions, LSTM, transposed convolutions.

    Decoding, brain signals are all that goes in. Encoding (predicting the brain signal from the
    sound), each of two encoders sees one input: the brain signal, of which only the beginning is
    given (``task.meg_init``), and the features of the stimulus. The published configurations name
    this encoder; the paper doesn't describe it, so that only its options, not its weights, are
    those of the published code.

    Parameters
    ----------
    n_sensors, n_outputs, n_subjects : C, F, S.
    hidden : channels of the encoder of the brain signal.
    n_features, hidden_features : features that go in, and channels of their encoder; 0: decoding.
    depth, kernel_size, stride : of the convolutions; the kernel is at least the stride.
    lstm, bidirectional_lstm, flip_lstm : layers (0: none), whether they go both ways, and whether
        they go from the end to the beginning: a response follows its cause.
    conv_dropout, lstm_dropout, dropout_input : probabilities after each convolution, between the
        layers of the LSTM, on the input.
    batch_norm, relu_leakiness : after each convolution.
    subject_dim, embedding_scale : see `SubjectEmbedding`; 0: none.
    embedding_location : where it is appended: to the brain signal ("input"), before the LSTM
        ("lstm"), or both; at least one.
    subject_layers, subject_layers_dim : see `SimpleConv`; on the brain signal.
    linear_out, complex_out : as in `SimpleConv`; neither: the last transposed convolution gives the
        output.
    """

    def __init__(
        self,
        n_sensors: int,
        n_outputs: int,
        n_subjects: int,
        hidden: int = 512,
        n_features: int = 0,
        hidden_features: int = 12,
        depth: int = 2,
        kernel_size: int = 4,
        stride: int = 2,
        lstm: int = 4,
        bidirectional_lstm: bool = False,
        flip_lstm: bool = False,
        conv_dropout: float = 0.0,
        lstm_dropout: float = 0.0,
        dropout_input: float = 0.0,
        batch_norm: bool = False,
        relu_leakiness: float = 0.0,
        subject_dim: int = 64,
        embedding_location: Sequence[str] = ("lstm",),
        embedding_scale: float = 1.0,
        subject_layers: bool = False,
        subject_layers_dim: str = "input",
        linear_out: bool = False,
        complex_out: bool = False,
    ):
        super().__init__()
        if not embedding_location or not set(embedding_location) <= set(LOCATIONS):
            raise ValueError(
                f"embedding_location={list(embedding_location)}: choose {' or '.join(LOCATIONS)}."
            )
        locations = embedding_location if subject_dim else ()
        self.embeds_input, self.embeds_lstm = (place in locations for place in LOCATIONS)
        self.flip = flip_lstm
        self.rate = stride**depth
        activation = partial(nn.LeakyReLU, relu_leakiness)
        strided = partial(
            _StridedStack,
            depth=depth,
            kernel_size=kernel_size,
            stride=stride,
            activation=activation,
            batch_norm=batch_norm,
            dropout=conv_dropout,
        )

        channels = n_sensors
        self.subject_layers: SubjectLayers | None = None
        if subject_layers:
            width = width_of(subject_layers_dim, channels, hidden)
            self.subject_layers = SubjectLayers(channels, width, n_subjects)
            channels = width
        self.subject_embedding: SubjectEmbedding | None = None
        if subject_dim:
            self.subject_embedding = SubjectEmbedding(n_subjects, subject_dim, embedding_scale)
        channels += subject_dim if self.embeds_input else 0

        self.dropout_input = nn.Dropout(dropout_input)
        self.encoders = nn.ModuleDict({"meg": strided(channels, hidden, hidden)})
        width = hidden
        if n_features:
            self.encoders["features"] = strided(n_features, hidden_features, hidden_features)
            width += hidden_features
        n_in = width + (subject_dim if self.embeds_lstm else 0)
        self.lstm: nn.LSTM | None = None
        if lstm:
            self.lstm = nn.LSTM(
                n_in,
                width,
                lstm,
                dropout=lstm_dropout if lstm > 1 else 0.0,  # it is between layers
                bidirectional=bidirectional_lstm,
                batch_first=True,
            )
            n_in = 2 * width if bidirectional_lstm else width
        has_head = linear_out or complex_out
        self.linear = nn.Conv1d(n_in, width, 1)
        self.decoder = strided(
            width,
            width,
            width if has_head else n_outputs,
            transposed=True,
            ends_linear=not has_head,
        )
        self.final = make_head(width, n_outputs, linear_out, complex_out, activation)

    def forward(
        self,
        meg: Tensor,
        subject_index: Tensor,
        layouts: Tensor,
        layout_index: Tensor,
        features: Tensor | None = None,
    ) -> Tensor:
        """Decode features, or encode features into brain signals: [B, F, T].

        Parameters
        ----------
        meg : [B, C, T]; encoding, zero but for its beginning.
        subject_index : [B].
        layouts, layout_index : not used: each sensor has an input of its own.
        features : [B, n_features, T]; None: decoding.
        """
        if (features is None) == ("features" in self.encoders):
            raise ValueError(
                "Features go in where, and only where, the model was built for them (n_features)."
            )
        n_times = meg.shape[-1]
        x = meg if self.subject_layers is None else self.subject_layers(meg, subject_index)
        if self.subject_embedding is not None and self.embeds_input:
            x = self.subject_embedding(x, subject_index)
        inputs = {"meg": x} if features is None else {"meg": x, "features": features}
        padding = (0, -n_times % self.rate)
        encoded = [
            self.encoders[name](nn.functional.pad(self.dropout_input(one), padding))
            for name, one in inputs.items()
        ]
        x = torch.cat(encoded, dim=1)
        if self.subject_embedding is not None and self.embeds_lstm:
            x = self.subject_embedding(x, subject_index)
        if self.lstm is not None:
            x = x.flip(-1) if self.flip else x
            x = self.lstm(x.transpose(1, 2))[0].transpose(1, 2)
            x = x.flip(-1) if self.flip else x
        x = self.decoder(self.linear(x))
        x = x if self.final is None else self.final(x)
        return x[..., :n_times]


class _StridedStack(nn.Module):
    """Convolutions that divide the number of samples by their stride, or multiply it (transposed).

    Parameters
    ----------
    n_in, n_hidden, n_out : channels before, between and after.
    ends_linear : no batch norm, activation and dropout after the last one.
    """

    def __init__(
        self,
        n_in: int,
        n_hidden: int,
        n_out: int,
        depth: int,
        kernel_size: int,
        stride: int,
        activation: Callable[[], nn.Module],
        batch_norm: bool,
        dropout: float,
        transposed: bool = False,
        ends_linear: bool = False,
    ):
        super().__init__()
        self.excess = kernel_size - stride
        if self.excess < 0:
            raise ValueError(f"kernel_size={kernel_size} must be at least stride={stride}.")
        self.transposed = transposed
        convolution = nn.ConvTranspose1d if transposed else nn.Conv1d
        widths = [n_in, *[n_hidden] * (depth - 1), n_out]
        self.sequence = nn.ModuleList()
        for index in range(depth):
            n = widths[index + 1]
            layer: list[nn.Module] = [convolution(widths[index], n, kernel_size, stride)]
            if index < depth - 1 or not ends_linear:
                layer += [nn.BatchNorm1d(n)] if batch_norm else []
                layer += [activation()]
                layer += [nn.Dropout(dropout)] if dropout else []
            self.sequence.append(nn.Sequential(*layer))

    def forward(self, x: Tensor) -> Tensor:
        """[B, n_in, T] to [B, n_out, T / rate], or T * rate samples if transposed."""
        before = self.excess // 2
        after = self.excess - before
        for layer in self.sequence:
            if self.transposed:
                x = layer(x)
                x = x[..., before : x.shape[-1] - after]
            else:
                x = layer(nn.functional.pad(x, (before, after)))
        return x
