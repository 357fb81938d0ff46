"""What a decoder says of a recording: an embedding over time, and ranks of candidates."""

from dataclasses import dataclass

import mne
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bm.metrics import chance, rank_of_truth, top_k_accuracy

BEST = 5
"""Candidates that are listed for each window."""


@dataclass(frozen=True)
class Embedding:
    """Features of what was heard, told from the brain, moment by moment.

    Attributes
    ----------
    values : [F, n].
    begin : seconds of the recording, of the first one.
    sample_rate : Hz.
    names : [F] of the features.
    latency : seconds after a moment at which its values are known, at most.
    """

    values: np.ndarray
    begin: float
    sample_rate: float
    names: list[str]
    latency: float

    @property
    def times(self) -> np.ndarray:
        """[n] seconds of the recording."""
        return self.begin + np.arange(self.values.shape[1]) / self.sample_rate

    def to_raw(self) -> "mne.io.RawArray":
        """The same for MNE, a channel for each feature; `begin` is its time 0."""
        info = mne.create_info(self.names, self.sample_rate, "misc")
        return mne.io.RawArray(self.values.astype(float), info, verbose="error")


def to_epochs(
    estimates: Tensor, begins: np.ndarray, sample_rate: float, names: list[str]
) -> mne.EpochsArray:
    """Estimates [n, F, T] of windows for MNE; their events are the samples at which they begin."""
    samples = np.round(begins * sample_rate).astype(int)
    events = np.stack([samples, np.zeros_like(samples), np.ones_like(samples)], axis=1)
    info = mne.create_info(names, sample_rate, "misc")
    return mne.EpochsArray(estimates.double().numpy(), info, events, verbose="error")


@dataclass(frozen=True)
class Ranking:
    """How probable each candidate is in each window.

    Attributes
    ----------
    begins : [n] seconds of the recording at which windows begin.
    probability : [n, V].
    candidates : [V rows] what they are.
    truth : [n] column of what was heard, if that is known; -1 where it is no candidate.
    """

    begins: np.ndarray
    probability: np.ndarray
    candidates: pd.DataFrame
    truth: np.ndarray | None = None

    def table(self, n_best: int = BEST) -> pd.DataFrame:
        """The best candidates of each window: ``window``, ``rank`` from 1, ``probability``, ..."""
        n_best = min(n_best, len(self.candidates))
        best = np.argsort(-self.probability, axis=1, kind="stable")[:, :n_best]
        window = np.repeat(np.arange(len(self.begins)), n_best)
        place = best.flatten()
        found = pd.DataFrame(
            {
                "window": self.begins[window],
                "rank": np.tile(np.arange(1, n_best + 1), len(self.begins)),
                "probability": self.probability[window, place],
            }
        )
        labels = self.candidates.drop(columns="begin").iloc[place].reset_index(drop=True)
        found = pd.concat([found, labels], axis=1)
        return found if self.truth is None else found.assign(is_true=self.truth[window] == place)

    @property
    def n_judged(self) -> int:
        """Windows of which it is known what was heard."""
        return 0 if self.truth is None else int((self.truth >= 0).sum())

    def accuracy(self, k: int) -> float:
        """Share of the judged windows whose truth is among the `k` most probable candidates.

        Raises
        ------
        ValueError : it isn't known what was heard, or there are not more than `k` candidates.
        """
        if self.truth is None or not self.n_judged:
            raise ValueError("What was heard isn't known, so nothing can be judged.")
        judged = self.truth >= 0
        scores, truth = torch.from_numpy(self.probability), torch.from_numpy(self.truth)
        ranks = rank_of_truth(scores[judged], truth[judged])
        return top_k_accuracy(ranks, k, len(self.candidates))

    def chance(self, k: int) -> float:
        """Accuracy of guessing."""
        return chance(k, len(self.candidates))


def nearest(moments: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """[n] which candidate begins at each moment, to half the way to the next; -1: none."""
    distance = np.abs(moments[:, None] - begins)
    nearest = distance.argmin(axis=1)
    tolerance = np.diff(np.sort(begins)).min() / 2 if len(begins) > 1 else 0.0
    return np.where(distance.min(axis=1) <= tolerance + 1e-6, nearest, -1)
