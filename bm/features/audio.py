"""Simple courses of the sound: pitch, envelope, and whether somebody speaks.

Enters: a piece of sound at 16 kHz. Leaves: 100 frames a second.

References
----------
.. [1] De Cheveigné & Kawahara 2002, YIN, doi:10.1121/1.1458024
.. [2] Crosse et al. 2016, the mTRF toolbox, doi:10.3389/fnhum.2016.00604
.. [3] Biesmans et al. 2017, envelopes for attention decoding, doi:10.1109/TNSRE.2016.2571900
"""

import logging
from types import ModuleType
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are used: signals take long
from torch import Tensor

from bm.core.messages import DataError
from bm.features.base import SoundFeature, register

logger = logging.getLogger(__name__)

HOP = 160
"""Samples from frame to frame: 10 ms."""
FRAMES_AT_ONCE = 6000


@register
class Pitch(SoundFeature):
    """Fundamental frequency in Hz of the voice by YIN [1]_; 0 where there is none.

    The period is librosa's (`librosa.yin`, extra ``audio``). YIN finds one in any sound, so a frame
    counts as voiced only if it does repeat itself after that period: the squared difference to
    itself one period later, relative to the power of both, is at most `voicing_threshold`. That is
    0 for a periodic sound, about 1 for noise.

    Parameters
    ----------
    min_f0, max_f0 : range in Hz. A frame holds four periods of the lowest (rounded up to a power of
        two samples): 64 ms for 100 Hz.
    threshold : of YIN: the first dip below it of the difference function is the period.
    voicing_threshold : how much a voiced frame may differ from itself a period later.
    """

    def __init__(
        self,
        min_f0: float = 100,
        max_f0: float = 350,
        threshold: float = 0.1,
        voicing_threshold: float = 0.25,
    ):
        if not 20 <= min_f0 < max_f0 <= self.input_rate / 4:
            raise ValueError(
                f"Pitch: min_f0={min_f0} and max_f0={max_f0} should be a range within 20 and "
                f"{self.input_rate // 4} Hz."
            )
        for option, value in (("threshold", threshold), ("voicing_threshold", voicing_threshold)):
            if not 0 < value < 1:
                raise ValueError(f"Pitch: {option}={value} must lie between 0 and 1.")
        self.min_f0 = float(min_f0)
        self.max_f0 = float(max_f0)
        self.threshold = float(threshold)
        self.voicing_threshold = float(voicing_threshold)
        self._frame_length = 1 << int(np.ceil(np.log2(4 * self.input_rate / min_f0)))

    @property
    def key(self) -> dict[str, Any]:
        """All arguments, and the version of librosa."""
        return {
            "min_f0": self.min_f0,
            "max_f0": self.max_f0,
            "threshold": self.threshold,
            "voicing_threshold": self.voicing_threshold,
            "librosa": _librosa().__version__,
        }

    def frames(self, sound: Tensor) -> np.ndarray:
        """[n_samples] to [n_frames, 1] in Hz.

        Raises
        ------
        DataError : shorter than two periods of the lowest pitch.
        """
        samples = sound.numpy().astype(np.float32)
        shortest = int(np.ceil(2 * self.input_rate / self.min_f0))
        if len(samples) < shortest:
            raise DataError(
                f"a piece of {len(samples)} samples is shorter than two periods of "
                f"min_f0={self.min_f0:g} Hz ({shortest} samples)."
            )
        half = self._frame_length // 2
        padded = np.pad(samples, (half, half + HOP))  # frames are centred on their moment
        starts = np.arange(0, len(samples), HOP)
        parts = np.array_split(starts, -(-len(starts) // FRAMES_AT_ONCE))
        pitch = np.concatenate([self._pitch(padded, part) for part in parts])
        if not pitch.any():
            logger.warning(
                "Pitch: no voice between %g and %g Hz in a piece of %.2f s, all of it is 0%s.",
                self.min_f0, self.max_f0, len(samples) / self.input_rate,
                "" if samples.any() else " (it is silent)",
            )  # fmt: skip
        return pitch[:, None].astype(np.float32)

    def _pitch(self, padded: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Pitch of the frames that begin at `starts`."""
        stretch = padded[starts[0] : starts[-1] + self._frame_length]
        f0 = _librosa().yin(
            stretch, fmin=self.min_f0, fmax=self.max_f0, sr=self.input_rate, hop_length=HOP,
            frame_length=self._frame_length, trough_threshold=self.threshold, center=False,
        )  # fmt: skip
        period = np.rint(self.input_rate / f0).astype(int)
        length = self._frame_length - int(np.ceil(self.input_rate / self.min_f0)) - 1
        first = starts[:, None] + np.arange(length)
        now, later = padded[first], padded[first + period[:, None]]
        difference = np.square(now - later).sum(axis=1)
        power = np.square(now).sum(axis=1) + np.square(later).sum(axis=1)
        voiced = (power > 0) & (difference <= self.voicing_threshold * power)
        return np.where(voiced, f0.clip(self.min_f0, self.max_f0), 0.0)


@register
class Envelope(SoundFeature):
    """Broadband envelope, as temporal response functions are fitted to [2]_.

    Magnitude of the analytic signal, low-passed and resampled to 100 Hz.

    Parameters
    ----------
    compression : exponent of the envelope; below 1 it makes quiet parts count more, as hearing
        does. 1: linear; 0.3 and 0.6 are usual [2]_ [3]_.
    """

    def __init__(self, compression: float = 1.0):
        if not 0 < compression <= 1:
            raise ValueError(f"Envelope: compression={compression} must be above 0, at most 1.")
        self.compression = float(compression)

    @property
    def key(self) -> dict[str, Any]:
        """All arguments."""
        return {"compression": self.compression}

    def frames(self, sound: Tensor) -> np.ndarray:
        """[n_samples] to [n_frames, 1].

        Raises
        ------
        DataError : shorter than a frame.
        """
        samples = _at_least_one_frame(sound, self.name)
        n = len(samples)
        magnitude = np.abs(scipy.signal.hilbert(samples, scipy.fft.next_fast_len(n)))[:n]
        envelope = scipy.signal.resample_poly(magnitude, 1, HOP, padtype="line").clip(min=0)
        return (envelope**self.compression)[:, None].astype(np.float32)


@register
class SpeechActivity(SoundFeature):
    """How surely there is speech, from 0 to 1, by its energy alone.

    The level of 10 ms, smoothed over 50 ms, is compared to that of the loud parts of the same piece
    (its 95th percentile). 0: more than 30 dB (`threshold_db`) below it, or below -70 dB of full
    scale; 1: less than 20 dB below it; linear in between. So it doesn't depend on the gain, but
    takes any sound for speech.

    Parameters
    ----------
    threshold_db : dB of the level that counts as silence, relative to the loud parts; negative.
    """

    RAMP_DB = 10.0
    FLOOR_DB = -70.0
    LOUD = 95
    SMOOTHED = 5

    def __init__(self, threshold_db: float = -30.0):
        if threshold_db > -self.RAMP_DB:
            raise ValueError(
                f"SpeechActivity: threshold_db={threshold_db} must be {-self.RAMP_DB:g} or less."
            )
        self.threshold_db = float(threshold_db)

    @property
    def key(self) -> dict[str, Any]:
        """All arguments."""
        return {"threshold_db": self.threshold_db}

    def frames(self, sound: Tensor) -> np.ndarray:
        """[n_samples] to [n_frames, 1].

        Raises
        ------
        DataError : shorter than a frame.
        """
        samples = _at_least_one_frame(sound, self.name)
        whole = np.pad(samples, (0, -len(samples) % HOP), mode="edge").reshape(-1, HOP)
        width = min(self.SMOOTHED, len(whole))
        power = np.square(whole).mean(axis=1)
        smooth = np.convolve(power, np.ones(width), "same")
        smooth /= np.convolve(np.ones(len(power)), np.ones(width), "same")  # fewer at the ends
        level = 10 * np.log10(np.maximum(smooth, 1e-12))
        silence = max(np.percentile(level, self.LOUD) + self.threshold_db, self.FLOOR_DB)
        return ((level - silence) / self.RAMP_DB).clip(0, 1)[:, None].astype(np.float32)


def _at_least_one_frame(sound: Tensor, feature: str) -> np.ndarray:
    """Samples in double precision; silence is logged.

    Raises
    ------
    DataError : less than a frame.
    """
    samples = sound.double().numpy()
    if len(samples) < HOP:
        raise DataError(f"a piece of {len(samples)} samples is shorter than a frame ({HOP}).")
    if not samples.any():
        logger.warning("%s: a piece of %.2f s is silent.", feature, len(samples) / 16_000)
    return samples


def _librosa() -> ModuleType:
    """The package, imported late: it is optional, and slow to load.

    Raises
    ------
    ImportError : it isn't installed; the message says how to.
    """
    try:
        import librosa
    except ImportError as error:
        raise ImportError(
            "Pitch needs the package librosa. Run: pip install bm[audio]   (or: pip install "
            "librosa)"
        ) from error
    return librosa
