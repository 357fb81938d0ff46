"""The brain encoder of Défossez et al. 2023: sensor attention, subject layer, convolutions."""

from functools import partial

from torch import Tensor, nn

from bm.models.layers import ConvSequence, SubjectEmbedding, SubjectLayers
from bm.models.merger import SpatialAttention


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
    gelu, relu_leakiness : activation: GELU, else (leaky) ReLU.
    merger, merger_channels, merger_pos_dim, merger_dropout : see `SpatialAttention`.
    initial_linear, initial_depth, initial_nonlin : channels of the first 1x1 convolutions (0:
        none), how many of them, and whether an activation follows the last.
    subject_layers, subject_layers_dim, subject_layers_id : see `SubjectLayers`; "input" keeps the
        number of channels, "hidden" goes to `hidden`.
    subject_dim, embedding_scale : see `SubjectEmbedding`; 0: none.
    linear_out, complex_out : head of one, or of two 1x1 convolutions; neither: the last convolution
        gives the features.

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
    ):
        super().__init__()
        if linear_out and complex_out:
            raise ValueError("linear_out and complex_out are two different heads: set one of them.")
        activation = nn.GELU if gelu else partial(nn.LeakyReLU, relu_leakiness)
        self.n_subjects = n_subjects
        channels = n_sensors
        self.merger = (
            SpatialAttention(merger_channels, merger_pos_dim, merger_dropout) if merger else None
        )
        channels = merger_channels if merger else channels

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
            widths = {"input": channels, "hidden": hidden}
            if subject_layers_dim not in widths:
                raise ValueError(
                    f"subject_layers_dim={subject_layers_dim!r}: choose input or hidden."
                )
            width = widths[subject_layers_dim]
            self.subject_layers = SubjectLayers(channels, width, n_subjects, subject_layers_id)
            channels = width
        self.subject_embedding = None
        if subject_dim:
            self.subject_embedding = SubjectEmbedding(n_subjects, subject_dim, embedding_scale)
            channels += subject_dim

        has_head = linear_out or complex_out
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
        )
        self.encoders = nn.ModuleDict({"meg": encoder})
        self.final: nn.Module | None = None
        if linear_out:
            self.final = nn.ConvTranspose1d(hidden, n_outputs, 1)
        elif complex_out:
            self.final = nn.Sequential(
                nn.Conv1d(hidden, 2 * hidden, 1),
                activation(),
                nn.ConvTranspose1d(2 * hidden, n_outputs, 1),
            )

    def forward(
        self, meg: Tensor, subject_index: Tensor, layouts: Tensor, layout_index: Tensor
    ) -> Tensor:
        """Estimate the stimulus features [B, F, T] from scaled brain signals.

        Parameters
        ----------
        meg : [B, C, T].
        subject_index : [B].
        layouts, layout_index : [L, C, 2] and [B], see `SpatialAttention`.
        """
        x = meg
        if self.merger is not None:
            x = self.merger(x, layouts, layout_index)
        if self.initial_linear is not None:
            x = self.initial_linear(x)
        if self.subject_layers is not None:
            x = self.subject_layers(x, subject_index)
        if self.subject_embedding is not None:
            x = self.subject_embedding(x, subject_index)
        x = self.encoders["meg"](x)
        return x if self.final is None else self.final(x)
