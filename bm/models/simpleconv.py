"""The brain encoder of Défossez et al. 2023: sensor attention, subject layer, convolutions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bm.models.context import DualPathRNN, TransformerHead
from bm.models.layers import ConvSequence, SubjectEmbedding, SubjectLayers
from bm.models.merger import SpatialAttention
from bm.models.sensors import SensorDropout, SensorSubset
from bm.models.spectral import SpectralInput


class SimpleConv(nn.Module):
    """Convolutional, subject-aware encoder of M/EEG [1]_.

    ::

        sensors -> spatial attention -> 1x1 convolution -> subject layer
                -> dilated convolutions with skips and gates -> 1x1 convolutions -> features

    The defaults are those of the configuration files; ``model=clip_conv`` sets the published
    encoder (9,565,054 parameters for 27 subjects and 1024 outputs).

    Parameters
    ----------
    n_sensors : C, the largest number of sensors of any recording.
    n_outputs : F, size of the stimulus features.
    n_subjects : S.
    hidden : channels of the convolutions.
    depth, kernel_size, dilation_growth, dilation_period, skip, glu, glu_context, batch_norm,
    conv_dropout, dropout_input : see `ConvSequence`.
    scale : see `ConvSequence`: layer scale.
    gelu, relu_leakiness : activation: GELU, else (leaky) ReLU.
    merger, merger_channels, merger_pos_dim, merger_dropout, merger_per_subject : see
        `SpatialAttention`.
    dropout, dropout_rescale : see `SensorDropout`; 0: none.
    subsample_meg_channels : see `SensorSubset`; 0: all sensors.
    initial_linear, initial_depth, initial_nonlin : channels of the first 1x1 convolutions (0:
        none), how many of them, and whether an activation follows the last.
    subject_layers, subject_layers_dim, subject_layers_id : see `SubjectLayers`; "input" keeps the
        number of channels, "hidden" goes to `hidden`.
    subject_dim, embedding_scale : see `SubjectEmbedding`; 0: none.
    unseen_subject_mean : a subject of index -1 gets the mean of what was learned for the others,
        so that a new person can be decoded without training (off: it is refused).
    n_fft, fft_complex : see `SpectralInput`; None: the convolutions see the signal itself.
    dual_path : see `DualPathRNN`; 0: none.
    transformer, transformer_heads : layers (0: none) and heads, see `TransformerHead`; its dropout
        is `conv_dropout`.
    linear_out, complex_out : head of one, or of two 1x1 convolutions; neither: the last convolution
        gives the features.
    n_axes : of the sensor positions: 2, as published, or 3.
    n_learned : subjects that are trained on, if fewer than there is room for.

    References
    ----------
    .. [1] Défossez et al. 2023, doi:10.1038/s42256-023-00714-5
    """

    def __init__(
        self,
        n_sensors: int,
        n_outputs: int,
        n_subjects: int,
        hidden: int = 320,
        depth: int = 4,
        kernel_size: int = 5,
        dilation_growth: int = 2,
        dilation_period: int | None = None,
        skip: bool = False,
        glu: int = 0,
        glu_context: int = 0,
        batch_norm: bool = False,
        conv_dropout: float = 0.0,
        dropout_input: float = 0.0,
        gelu: bool = False,
        relu_leakiness: float = 0.0,
        merger: bool = False,
        merger_channels: int = 270,
        merger_pos_dim: int = 256,
        merger_dropout: float = 0.2,
        initial_linear: int = 0,
        initial_depth: int = 1,
        initial_nonlin: bool = False,
        subject_layers: bool = False,
        subject_layers_dim: str = "input",
        subject_layers_id: bool = False,
        subject_dim: int = 64,
        embedding_scale: float = 1.0,
        linear_out: bool = False,
        complex_out: bool = False,
        scale: float | None = None,
        merger_per_subject: bool = False,
        dropout: float = 0.0,
        dropout_rescale: bool = True,
        subsample_meg_channels: int = 0,
        unseen_subject_mean: bool = False,
        n_fft: int | None = None,
        fft_complex: bool = True,
        dual_path: int = 0,
        transformer: int = 0,
        transformer_heads: int = 8,
        n_axes: int = 2,
        n_learned: int | None = None,
    ):
        super().__init__()
        activation = nn.GELU if gelu else partial(nn.LeakyReLU, relu_leakiness)
        self.n_subjects = n_subjects
        self.n_learned = (n_learned or n_subjects) if unseen_subject_mean else None
        self.subset = (
            SensorSubset(subsample_meg_channels, n_sensors) if subsample_meg_channels else None
        )
        self.dropout = SensorDropout(dropout, dropout_rescale) if dropout else None
        channels = n_sensors
        self.merger: SpatialAttention | None = None
        if merger:
            heads_of = n_subjects if merger_per_subject else None
            self.merger = SpatialAttention(
                merger_channels, merger_pos_dim, merger_dropout, n_axes, heads_of, self.n_learned
            )
            channels = merger_channels

        self.initial_linear: nn.Sequential | None = None
        if initial_linear:
            layers: list[nn.Module] = [nn.Conv1d(channels, initial_linear, 1)]
            for _ in range(initial_depth - 1):
                layers += [activation(), nn.Conv1d(initial_linear, initial_linear, 1)]
            layers += [activation()] if initial_nonlin else []
            self.initial_linear = nn.Sequential(*layers)
            channels = initial_linear

        self.subject_layers: SubjectLayers | None = None
        if subject_layers:
            width = width_of(subject_layers_dim, channels, hidden)
            self.subject_layers = SubjectLayers(
                channels, width, n_subjects, subject_layers_id, self.n_learned
            )
            channels = width
        self.subject_embedding: SubjectEmbedding | None = None
        if subject_dim:
            self.subject_embedding = SubjectEmbedding(
                n_subjects, subject_dim, embedding_scale, self.n_learned
            )
            channels += subject_dim
        self.spectral: SpectralInput | None = None
        if n_fft:
            self.spectral = SpectralInput(n_fft, fft_complex)
            channels *= self.spectral.n_per_channel

        has_head = linear_out or complex_out
        if not has_head and (n_fft or dual_path or transformer):
            raise ValueError(
                "n_fft, dual_path and transformer need a head: set complex_out or linear_out."
            )
        widths_after = [hidden] * (depth - 1) + [hidden if has_head else n_outputs]
        encoder = ConvSequence(
            [channels, *widths_after],
            activation,
            kernel_size,
            dilation_growth,
            dilation_period,
            batch_norm,
            skip,
            glu,
            glu_context,
            activation_on_last=has_head,
            dropout=conv_dropout,
            dropout_input=dropout_input,
            scale=scale,
        )
        self.encoders = nn.ModuleDict({"meg": encoder})
        self.dual_path = DualPathRNN(hidden, dual_path) if dual_path else None
        self.transformer: TransformerHead | None = None
        if transformer:
            self.transformer = TransformerHead(hidden, transformer, transformer_heads, conv_dropout)
        self.final = make_head(hidden, n_outputs, linear_out, complex_out, activation, n_fft)

    def forward(
        self, meg: Tensor, subject_index: Tensor, layouts: Tensor, layout_index: Tensor
    ) -> Tensor:
        """Estimate the stimulus features [B, F, T] from scaled brain signals.

        Parameters
        ----------
        meg : [B, C, T].
        subject_index : [B]; -1 for a subject that was never seen, see `unseen_subject_mean`.
        layouts, layout_index : [L, C, n_axes] and [B], see `SpatialAttention`.

        Raises
        ------
        ValueError : a subject is unseen, and there is nothing to fall back on.
        """
        self._check_subjects(subject_index)
        x = meg
        if self.subset is not None:
            x, layouts = self.subset(x, layouts, layout_index)
        if self.dropout is not None:
            x = self.dropout(x, layouts, layout_index)
        if self.merger is not None:
            x = self.merger(x, layouts, layout_index, subject_index)
        if self.initial_linear is not None:
            x = self.initial_linear(x)
        if self.subject_layers is not None:
            x = self.subject_layers(x, subject_index)
        if self.subject_embedding is not None:
            x = self.subject_embedding(x, subject_index)
        if self.spectral is not None:
            x = self.spectral(x)
        x = self.encoders["meg"](x)
        for context in (self.dual_path, self.transformer):
            x = x if context is None else context(x)
        x = x if self.final is None else self.final(x)
        return x[..., : meg.shape[-1]]

    def _check_subjects(self, subject_index: Tensor) -> None:
        """In training all subjects are known, and asking a GPU would make it wait."""
        if self.training or self.n_learned is not None or torch.compiler.is_compiling():
            return
        if (subject_index < 0).any():
            raise ValueError(
                "A segment is of a subject that the model was not trained on. Set "
                "simpleconv.unseen_subject_mean=true to decode it with the mean of the learned "
                "subjects, or calibrate the model to the subject."
            )


def width_of(dim: str, n_input: int, n_hidden: int) -> int:
    """Channels after the subject layer: ``subject_layers_dim`` is "input" or "hidden"."""
    widths = {"input": n_input, "hidden": n_hidden}
    if dim not in widths:
        raise ValueError(f"subject_layers_dim={dim!r}: choose input or hidden.")
    return widths[dim]


def make_head(
    hidden: int,
    n_outputs: int,
    linear_out: bool,
    complex_out: bool,
    activation: Callable[[], nn.Module],
    n_fft: int | None = None,
) -> nn.Module | None:
    """One 1x1 convolution (linear), two (complex), or None; after Fourier windows, back to T."""
    if linear_out and complex_out:
        raise ValueError("linear_out and complex_out are two different heads: set one of them.")
    if not linear_out and not complex_out:
        return None
    widened = 2 * hidden if complex_out else hidden
    if n_fft is None:
        last = nn.ConvTranspose1d(widened, n_outputs, 1)
    else:  # each window adds its samples
        last = nn.ConvTranspose1d(widened, n_outputs, n_fft, n_fft // 2, padding=n_fft // 2)
    return last if linear_out else nn.Sequential(nn.Conv1d(hidden, widened, 1), activation(), last)
