"""Short-time Fourier transform of the brain signal, as input of the convolutions."""

import torch
from torch import Tensor, nn


class SpectralInput(nn.Module):
    """Each channel becomes one channel per frequency (two, if complex), at a lower rate.

    The signal is padded at its end to a whole number of hops, so that nothing of it is lost; the
    published code threw its padded signal away.

    Parameters
    ----------
    n_fft : samples of a Hann window, even; windows are half of that apart.
    is_complex : keep real and imaginary parts; else the magnitude.
    """

    window: Tensor

    def __init__(self, n_fft: int, is_complex: bool = True):
        super().__init__()
        if n_fft < 4 or n_fft % 2:
            raise ValueError(f"n_fft={n_fft} must be an even number from 4 on.")
        self.n_fft = n_fft
        self.hop = n_fft // 2
        self.is_complex = is_complex
        self.register_buffer(
            "window", torch.hann_window(n_fft, dtype=torch.float64), persistent=False
        )

    @property
    def n_per_channel(self) -> int:
        """Channels that come out for each one that goes in."""
        return (self.n_fft // 2 + 1) * (2 if self.is_complex else 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C * n_per_channel, K], frame k being centred at sample k * hop."""
        n_times = x.shape[-1]
        x = nn.functional.pad(x, (0, -n_times % self.hop))
        flat = x.flatten(0, 1)
        flat = flat.float() if flat.dtype in (torch.bfloat16, torch.float16) else flat
        spectrum = torch.stft(
            flat,
            self.n_fft,
            self.hop,
            window=self.window.to(flat.dtype),
            normalized=True,
            pad_mode="constant",
            return_complex=True,
        )  # [B * C, frequencies, K]
        if self.is_complex:
            parts = torch.cat([spectrum.real, spectrum.imag], dim=1)
        else:
            parts = spectrum.abs()
        return parts.to(x.dtype).unflatten(0, x.shape[:2]).flatten(1, 2)

    def extra_repr(self) -> str:
        """Settings, for the printed model."""
        return f"n_fft={self.n_fft}, is_complex={self.is_complex}"
