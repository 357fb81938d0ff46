"""Training losses on estimates and targets [B, F, T]."""

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-8


class ClipLoss(nn.Module):
    """Contrastive loss: find the true segment of speech among those of the batch [1]_.

    The score of a pair is the inner product of the estimate with the candidate over its norm:
    estimates aren't normalised and there is no temperature, so confidence is the length of the
    estimate. The loss is the cross-entropy from brain to speech only.

    References
    ----------
    .. [1] Défossez et al. 2023, doi:10.1038/s42256-023-00714-5
    """

    def forward(self, estimates: Tensor, candidates: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of B estimates.

        Parameters
        ----------
        estimates : [B, F, T].
        candidates : [B', F, T]; number i is the truth of estimate i, those beyond B are negatives.
        mask : [B, 1, T], 1 where the loss counts; None: everywhere.
        """
        if mask is not None:
            estimates = estimates * mask
        target = torch.arange(len(estimates), device=estimates.device)
        return functional.cross_entropy(self.scores(estimates, candidates), target)

    def scores(self, estimates: Tensor, candidates: Tensor) -> Tensor:
        """[B, B'] inner products with the normalised candidates."""
        _check_shapes(estimates, candidates)
        flat = candidates.flatten(1)
        return (estimates.flatten(1) @ flat.T) / (flat.norm(dim=1) + EPSILON)

    def probabilities(self, estimates: Tensor, candidates: Tensor) -> Tensor:
        """[B, B'] probability of each candidate."""
        return self.scores(estimates, candidates).softmax(dim=1)


class RegressionLoss(nn.Module):
    """Mean absolute or squared difference, over the samples where the mask is 1.

    Parameters
    ----------
    power : 1 for L1, 2 for mean squared error.
    """

    def __init__(self, power: int):
        super().__init__()
        self.power = power

    def forward(self, estimates: Tensor, candidates: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of B estimates [B, F, T] against B targets; mask [B, 1, T]."""
        _check_shapes(estimates, candidates)
        difference = (estimates - candidates[: len(estimates)]).abs() ** self.power
        if mask is None:
            return difference.mean()
        weight = mask.expand_as(difference)
        return (difference * weight).sum() / weight.sum().clamp(min=1)


def _check_shapes(estimates: Tensor, candidates: Tensor) -> None:
    if estimates.shape[1:] != candidates.shape[1:]:
        raise ValueError(
            f"Estimates {tuple(estimates.shape)} and candidates {tuple(candidates.shape)} must "
            "have the same features and samples."
        )
