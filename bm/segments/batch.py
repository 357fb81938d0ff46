"""A batch of segments, and what a model says of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class SegmentBatch:
    """Segments side by side, of several subjects and recordings.

    Attributes
    ----------
    meg : [B, C, T] brain signal, MEG or EEG.
    features : [B, F, T] features of the stimulus; F is 0 where a model is asked what was heard.
    mask : [B, 1, T] bool, where a word is heard.
    subject_index, recording_index, layout_index : [B].
    row : [B], row of the split's table of segments.
    has_scaled_features : whether the features come from a table that was scaled as a whole.
    """

    meg: Tensor
    features: Tensor
    mask: Tensor
    subject_index: Tensor
    recording_index: Tensor
    layout_index: Tensor
    row: Tensor
    has_scaled_features: bool = False

    def __len__(self) -> int:
        return len(self.meg)

    def select(self, keep: Tensor) -> "SegmentBatch":
        """Only the segments marked in `keep` [B]."""
        return self._each(lambda tensor: tensor[keep])

    def to(self, device: str, non_blocking: bool = False) -> "SegmentBatch":
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "SegmentBatch":
        """The same batch in memory that a GPU can copy from by itself."""
        return self._each(Tensor.pin_memory)

    def tensors(self) -> list[Tensor]:
        """All that the batch holds."""
        return [one for one in vars(self).values() if isinstance(one, Tensor)]

    def _each(self, change: Callable[[Tensor], Tensor]) -> "SegmentBatch":
        changed: dict[str, Any] = {
            name: change(one) for name, one in vars(self).items() if isinstance(one, Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class Prediction:
    """What a model says of a batch.

    Attributes
    ----------
    estimate, target : [B, F, T], features told from the brain signal, and those of the sound heard.
    row : [B], row of the split's table; segments that were rejected are missing.
    """

    estimate: Tensor
    target: Tensor
    row: Tensor


def align_to_delay(
    meg: Tensor, features: Tensor, delay: float, sample_rate: float
) -> tuple[Tensor, Tensor]:
    """Pair each brain sample with the stimulus heard `delay` seconds earlier.

    Parameters
    ----------
    meg, features : [B, C, T] and [B, F, T], at the same sample rate.
    delay : seconds from sound to brain response; 0.15 in [1]_.
    sample_rate : Hz.

    Returns
    -------
    [B, C, T - n] and [B, F, T - n], n being the delay in whole samples (truncated, as published).

    References
    ----------
    .. [1] Défossez et al. 2023, doi:10.1038/s42256-023-00714-5
    """
    n_times = meg.shape[-1]
    n_delay = int(delay * sample_rate)
    if not 0 <= n_delay < n_times:
        raise ValueError(
            f"A delay of {delay} s is {n_delay} samples, but the segment has {n_times}. "
            f"Choose 0 to {(n_times - 1) / sample_rate:.2f} s (task.offset_meg_ms)."
        )
    return meg[..., n_delay:], features[..., : n_times - n_delay]
