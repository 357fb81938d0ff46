"""Losses that ask for the values of the target."""

from torch import Tensor, nn

from bm.losses.similarity import check_shapes


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
        check_shapes(estimates, candidates)
        difference = (estimates - candidates[: len(estimates)]).abs() ** self.power
        if mask is None:
            return difference.mean()
        weight = mask.expand_as(difference)
        return (difference * weight).sum() / weight.sum().clamp(min=1)
