"""Training segments full of artefacts are left out (``dset.autoreject``).

Enters: splits. Leaves: splits with fewer segments for training and validation. All test segments
stay: an accuracy over those that a method finds clean can't be compared with any other.

What counts as bad is chosen for each recording as in autoreject [1]_: by cross-validation, so that
the mean of the segments that are kept is nearest to the median, which no artefact moves, of others.
First a limit of the peak-to-peak amplitude for each sensor; then the share of sensors that may be
beyond theirs. Two deviations: sensors are never interpolated (bad ones of the segments that are
kept meet the clamp, ``norm.max_scale``; one that is often bad costs many segments, so mark it as
bad), and at least half of the segments that limits are chosen from are kept.

References
----------
.. [1] Jas et al. 2017, Autoreject, doi:10.1016/j.neuroimage.2017.06.030
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from bm.core.hashing import text_id
from bm.segments.dataset import SegmentDataset
from bm.segments.splits import Splits

logger = logging.getLogger(__name__)

N_FITTED = 200
"""Training segments of a recording that limits are chosen from, as many as scales are."""
MIN_SEGMENTS = 20
MIN_KEPT = 0.5
N_FOLDS = 5
N_LIMITS = 25
SHARES = tuple(np.linspace(0.05, 1.0, 20).round(2).tolist())
"""Of sensors that may be beyond their limits."""
BATCH = 256


@dataclass(frozen=True)
class Limits:
    """What makes a segment of a recording bad.

    Attributes
    ----------
    amplitude : [C] peak-to-peak amplitude of each sensor, in units of the signal.
    share : of sensors that may be beyond theirs.
    """

    amplitude: np.ndarray
    share: float

    def are_met(self, amplitude: np.ndarray) -> np.ndarray:
        """[n] whether segments with these peak-to-peak amplitudes [n, C] are good."""
        good: np.ndarray = (amplitude > self.amplitude).mean(axis=1) <= self.share
        return good


def reject_segments(splits: Splits, seed: int) -> Splits:
    """Leave bad segments out of training and validation; counted and logged.

    Limits are chosen from training segments alone. Recordings with fewer than `MIN_SEGMENTS` of
    these are left as they are.

    Parameters
    ----------
    splits : train, valid and test.
    seed : of the choice of segments, and of the folds.
    """
    train = splits.datasets["train"]
    limits: dict[int, Limits] = {}
    for recording, rows in train.table.groupby("recording").indices.items():
        index = int(str(recording))
        if len(rows) < MIN_SEGMENTS:
            logger.warning("%s: too few segments for autoreject.", splits.recordings[index])
            continue
        generator = np.random.default_rng([seed, text_id("autoreject", splits.recordings[index])])
        chosen = np.sort(generator.permutation(rows)[:N_FITTED])
        segments = train.gather_meg(torch.from_numpy(chosen)).cpu().numpy()
        limits[index] = choose_limits(segments, generator)
    datasets = dict(splits.datasets)
    for split in ("train", "valid"):
        datasets[split] = _good_ones(datasets[split], limits, split)
    return replace(splits, datasets=datasets)


def choose_limits(segments: np.ndarray, generator: np.random.Generator) -> Limits:
    """Limits for a recording, from some of its segments [n, C, T]."""
    folds = np.array_split(generator.permutation(len(segments)), N_FOLDS)
    amplitude = np.ptp(segments, axis=2)  # [n, C]
    limits = _sensor_limits(segments, amplitude, folds)
    n_beyond = (amplitude > limits).mean(axis=1)
    errors = {}
    for share in SHARES:
        good = n_beyond <= share
        if good.mean() >= MIN_KEPT:
            errors[share] = np.mean(
                [
                    np.sqrt(np.square(segments[kept].mean(axis=0) - middle).mean())
                    for kept, middle in _parts(segments, folds, good)
                ]
            )
    return Limits(limits, min(errors, key=errors.__getitem__))  # of equals, the strictest


def _sensor_limits(
    segments: np.ndarray, amplitude: np.ndarray, folds: list[np.ndarray]
) -> np.ndarray:
    """[C] amplitude up to which the mean of segments is nearest to the median of others."""
    quantiles = np.linspace(MIN_KEPT, 1.0, N_LIMITS)
    candidates = np.quantile(amplitude, quantiles, axis=0, method="lower")  # [L, C]
    errors = np.zeros(candidates.shape)
    for held_out in folds:
        fitted = np.setdiff1d(np.arange(len(segments)), held_out)
        middle = np.median(segments[held_out], axis=0)  # [C, T]
        for place, limit in enumerate(candidates):
            good = (amplitude[fitted] <= limit).astype(segments.dtype)  # [n, C]
            total = np.einsum("nc,nct->ct", good, segments[fitted])
            mean = total / np.maximum(good.sum(axis=0), 1)[:, None]
            errors[place] += np.sqrt(np.square(mean - middle).mean(axis=1))
    best: np.ndarray = np.take_along_axis(candidates, errors.argmin(axis=0)[None], axis=0)[0]
    return best


def _parts(
    segments: np.ndarray, folds: list[np.ndarray], good: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Good segments outside of each fold, and the median of all in it."""
    for held_out in folds:
        kept = np.setdiff1d(np.flatnonzero(good), held_out)
        if len(kept):
            yield kept, np.median(segments[held_out], axis=0)


def _good_ones(dataset: SegmentDataset, limits: dict[int, Limits], split: str) -> SegmentDataset:
    """The segments of a split that meet the limits of their recordings."""
    recording = dataset.table["recording"].to_numpy(np.int64)
    good = np.ones(len(dataset), dtype=bool)
    for rows in torch.arange(len(dataset)).split(BATCH):
        amplitude = np.ptp(dataset.gather_meg(rows).cpu().numpy(), axis=2)
        of_row = recording[rows.numpy()]
        for index in set(of_row.tolist()) & limits.keys():
            own = of_row == index
            good[rows.numpy()[own]] = limits[index].are_met(amplitude[own])
    logger.info("autoreject: %d of %d %s segments left out.", (~good).sum(), len(good), split)
    return SegmentDataset(
        dataset.table[good], dataset.store, dataset.stimuli, dataset.n_times, dataset.n_baseline
    )
