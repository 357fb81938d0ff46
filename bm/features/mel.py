"""Mel spectrogram of the sound."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bm.core.messages import DataError
from bm.features.base import SoundFeature, register


@register
class MelSpectrum(SoundFeature):
    """Log mel spectrogram, equal to torchaudio's ``MelSpectrogram`` with the same arguments.

    Parameters
    ----------
    n_fft : window length in samples at 16 kHz; windows overlap by three quarters.
    n_mels : number of bands F, on the HTK mel scale from 0 to 8 kHz.
    normalized : divide the spectrum by the norm of the window.
    use_log_scale, log_scale_eps : log10(x + eps) instead of the power x.
    """

    def __init__(
        self,
        n_fft: int = 512,
        n_mels: int = 120,
        normalized: bool = True,
        use_log_scale: bool = True,
        log_scale_eps: float = 1e-5,
    ):
        self.n_fft = int(n_fft)
        self.n_mels = self.dimension = int(n_mels)
        self.normalized = normalized
        self.use_log_scale = use_log_scale
        self.log_scale_eps = float(log_scale_eps)
        self._filters = mel_filters(self.n_fft // 2 + 1, self.n_mels, self.input_rate)

    @property
    def default(self) -> float:
        """Silence: log10(eps), or no power."""
        return float(np.log10(self.log_scale_eps)) if self.use_log_scale else 0.0

    @property
    def key(self) -> dict[str, Any]:
        """All arguments."""
        return {
            "n_fft": self.n_fft,
            "n_mels": self.n_mels,
            "normalized": self.normalized,
            "use_log_scale": self.use_log_scale,
            "log_scale_eps": self.log_scale_eps,
        }

    def frames(self, sound: Tensor) -> np.ndarray:
        """[n_samples] to [n_frames, n_mels], a frame every `n_fft // 4` samples."""
        if len(sound) <= self.n_fft // 2:
            raise DataError(
                f"a piece of {len(sound)} samples is shorter than half a window ({self.n_fft})."
            )
        window = torch.hann_window(self.n_fft)
        spectrum = torch.stft(
            sound.float(), self.n_fft, self.n_fft // 4, window=window, center=True,
            pad_mode="reflect", return_complex=True,
        )  # fmt: skip
        if self.normalized:
            spectrum = spectrum / window.square().sum().sqrt()
        mel = self._filters.T @ spectrum.abs().square()
        if self.use_log_scale:
            mel = (mel + self.log_scale_eps).log10()
        return mel.T.contiguous().numpy()


def mel_filters(n_frequencies: int, n_mels: int, sample_rate: int) -> Tensor:
    """Triangular filters [n_frequencies, n_mels] on the HTK mel scale, up to half the rate."""
    nyquist = sample_rate / 2
    frequencies = torch.linspace(0, nyquist, n_frequencies)  # float32, to torchaudio's last digit
    highest = 2595.0 * np.log10(1.0 + nyquist / 700.0)
    mels = torch.linspace(0, highest, n_mels + 2)
    corners = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    widths = corners.diff()
    rising = (frequencies[:, None] - corners[None, :-2]) / widths[:-1]
    falling = (corners[None, 2:] - frequencies[:, None]) / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0)
