"""The linear baseline: a backward model, as used for temporal response functions.

Enters: splits and a scaler. Leaves: estimates of the features from sensors at several lags, by
ridge regression for each listener, to be retrieved like those of a network.

Reference: Crosse et al. 2016, the mTRF toolbox, doi:10.3389/fnhum.2016.00604.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from bm.evaluation.candidates import SegmentFeatures
from bm.segments import SegmentBatch, SegmentDataset

Scale = Callable[[SegmentBatch], SegmentBatch]

LAGS = tuple(np.arange(0.0, 0.45, 0.05).tolist())
"""Seconds by which sensors follow the features."""
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties, in units of the mean variance of the inputs."""


class BackwardModel:
    """Ridge regression from lagged sensors to features, one for each listener.

    Parameters
    ----------
    scale : brings batches to a common scale.
    sample_rate : Hz.
    lags : seconds.
    penalties : the one with the highest correlation on the validation split is taken, for each
        listener.
    batch_size : segments at once.
    """

    def __init__(
        self,
        scale: Scale,
        sample_rate: float,
        lags: Sequence[float] = LAGS,
        penalties: Sequence[float] = PENALTIES,
        batch_size: int = 64,
    ):
        self.scale = scale
        self.shifts = [round(lag * sample_rate) for lag in lags]
        self.penalties = penalties
        self.batch_size = batch_size
        self.weights: dict[int, Tensor] = {}

    def fit(self, train: SegmentDataset, valid: SegmentDataset) -> "BackwardModel":
        """Estimate the weights of each listener on the training split."""
        for subject in sorted(set(train.table["subject"])):
            gram, shared = self._moments(train, int(subject))
            valid_gram, valid_shared = self._moments(valid, int(subject))
            unit = torch.eye(len(gram), dtype=gram.dtype) * gram.diagonal().mean()
            candidates = [torch.linalg.solve(gram + p * unit, shared) for p in self.penalties]
            scores = [
                float(
                    (w * valid_shared).sum() / (w * (valid_gram @ w)).sum().clamp(min=1e-12).sqrt()
                )
                for w in candidates
            ]
            self.weights[int(subject)] = candidates[int(np.argmax(scores))].float()
        return self

    def estimate(self, batch: SegmentBatch) -> SegmentFeatures:
        """Estimates of an unscaled batch."""
        batch = self.scale(batch)
        n_features = next(iter(self.weights.values())).shape[1]
        estimates = batch.meg.new_zeros(len(batch), n_features, batch.meg.shape[2])
        for subject in batch.subject_index.unique().tolist():
            own = batch.subject_index == subject
            lagged = self._lagged(batch.meg[own])
            estimates[own] = (lagged @ self.weights[subject]).transpose(1, 2)
        return SegmentFeatures(estimates, batch.row)

    def target(self, batch: SegmentBatch) -> SegmentFeatures:
        """Targets of an unscaled batch."""
        batch = self.scale(batch)
        return SegmentFeatures(batch.features, batch.row)

    def _moments(self, dataset: SegmentDataset, subject: int) -> tuple[Tensor, Tensor]:
        """Products of inputs with themselves and with the features, over all segments."""
        rows = torch.from_numpy(np.flatnonzero(dataset.table["subject"] == subject))
        n_inputs = dataset.store.n_sensors * len(self.shifts) + 1
        gram = torch.zeros(n_inputs, n_inputs, dtype=torch.float64)
        shared = torch.zeros(n_inputs, dataset.n_features, dtype=torch.float64)
        for part in rows.split(self.batch_size):
            batch = self.scale(dataset.gather(part))
            inputs = self._lagged(batch.meg).flatten(0, 1)
            gram += (inputs.T @ inputs).double()
            shared += (inputs.T @ batch.features.transpose(1, 2).flatten(0, 1)).double()
        return gram, shared

    def _lagged(self, meg: Tensor) -> Tensor:
        """[B, C, T] to [B, T, C * L + 1]: sensors from later samples, and a constant."""
        n_times = meg.shape[-1]
        padded = torch.nn.functional.pad(meg, (0, max(self.shifts)))
        parts = [padded[..., shift : shift + n_times] for shift in self.shifts]
        constant = torch.ones_like(meg[:, :1])
        return torch.cat([*parts, constant], dim=1).transpose(1, 2)
