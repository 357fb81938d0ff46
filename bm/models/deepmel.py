"""DeepMel: a learned representation of the sound, trained together with the brain encoder."""

from torch import nn

from bm.models.layers import ConvSequence


class DeepMel(ConvSequence):
    """The encoder's stack of convolutions on the mel spectrogram [B, F, T] (Défossez et al. 2023).

    Parameters
    ----------
    n_in_channels : bands of the spectrogram.
    n_hidden_channels, n_hidden_layers, n_out_channels : width, number of layers, size of the end.
    kernel, stride, dilation_growth, dilation_period, batch_norm, activation_on_last, skip, glu,
    glu_context : see `ConvSequence`; the stride must be 1, so that brain and sound stay aligned.
    """

    def __init__(
        self,
        n_in_channels: int,
        n_hidden_channels: int = 320,
        n_hidden_layers: int = 10,
        n_out_channels: int = 768,
        kernel: int = 3,
        stride: int = 1,
        dilation_growth: int = 2,
        dilation_period: int | None = 5,
        batch_norm: bool = True,
        activation_on_last: bool = False,
        skip: bool = True,
        glu_context: int = 1,
        glu: int = 2,
    ):
        if stride != 1:
            raise ValueError(f"feature_model_params.stride={stride} must be 1.")
        channels = [n_in_channels, *[n_hidden_channels] * (n_hidden_layers - 1), n_out_channels]
        super().__init__(
            channels,
            nn.GELU,
            kernel,
            dilation_growth,
            dilation_period,
            batch_norm,
            skip,
            glu,
            glu_context,
            activation_on_last,
        )
