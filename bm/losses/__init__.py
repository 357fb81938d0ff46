"""Training losses on estimates and targets [B, F, T], and the scores of their pairs."""

from bm.losses.contrastive import DUPLICATES, OBJECTIVES, ClipLoss
from bm.losses.penalty import spectral_penalty
from bm.losses.regression import RegressionLoss
from bm.losses.similarity import EPSILON, NORMALISED, Similarity

__all__ = [
    "DUPLICATES",
    "EPSILON",
    "NORMALISED",
    "OBJECTIVES",
    "ClipLoss",
    "RegressionLoss",
    "Similarity",
    "spectral_penalty",
]
