"""Contrastive losses: find the true segment of speech among those of the batch."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm.losses.similarity import Similarity

DUPLICATES = ("keep", "mask", "positive")
"""Candidates of the same content as the truth: negatives (as published), left out, or true too."""
OBJECTIVES = ("softmax", "sigmoid")
FIRST_BIAS = -10.0


class ClipLoss(nn.Module):
    """Cross-entropy of the true segment among the candidates, from brain to speech [1]_.

    Parameters
    ----------
    similarity : scores of estimates and candidates; as published if not given.
    duplicates : see `DUPLICATES`. When several people hear the same second, the published loss
        calls one of two equal candidates wrong.
    symmetric : the mean of this and of the loss from speech to brain, as in CLIP [2]_: each sound
        is to find its own estimate too.
    objective : "sigmoid" judges each pair by itself, so that the loss doesn't depend on the size
        of the batch, with a learned bias [3]_.

    References
    ----------
    .. [1] Défossez et al. 2023, doi:10.1038/s42256-023-00714-5
    .. [2] Radford et al. 2021, doi:10.48550/arXiv.2103.00020
    .. [3] Zhai et al. 2023, doi:10.48550/arXiv.2303.15343
    """

    def __init__(
        self,
        similarity: Similarity | None = None,
        duplicates: str = "keep",
        symmetric: bool = False,
        objective: str = "softmax",
    ):
        super().__init__()
        if duplicates not in DUPLICATES or objective not in OBJECTIVES:
            raise ValueError(
                f"duplicates={duplicates!r} is one of {', '.join(DUPLICATES)}, "
                f"objective={objective!r} one of {', '.join(OBJECTIVES)}."
            )
        if symmetric and objective == "sigmoid":
            raise ValueError("The sigmoid objective is symmetric already: leave symmetric off.")
        self.similarity = similarity or Similarity()
        self.duplicates = duplicates
        self.symmetric = symmetric
        self.bias = nn.Parameter(torch.tensor(FIRST_BIAS)) if objective == "sigmoid" else None

    def forward(
        self,
        estimates: Tensor,
        candidates: Tensor,
        mask: Tensor | None = None,
        alike: Tensor | None = None,
    ) -> Tensor:
        """Mean loss of B estimates.

        Parameters
        ----------
        estimates : [B, F, T].
        candidates : [B', F, T]; number i is the truth of estimate i, those beyond B are negatives.
        mask : [B, 1, T], 1 where the loss counts; None: everywhere.
        alike : [B, B'] bool, pairs of an estimate and a candidate of its truth's content; for
            `duplicates`. None: there are no duplicates.
        """
        if mask is not None:
            estimates = estimates * mask
        scores = self.scores(estimates, candidates)
        if alike is None or self.duplicates == "keep":
            alike = torch.zeros_like(scores, dtype=torch.bool)
        alike = alike.clone().fill_diagonal_(True)
        if self.bias is not None:
            return self._sigmoid_loss(scores + self.bias, alike)
        loss = self._cross_entropy(scores, alike)
        if self.symmetric:
            n_estimates = len(scores)
            back = self._cross_entropy(scores[:, :n_estimates].T, alike[:, :n_estimates].T)
            loss = (loss + back) / 2
        return loss

    def scores(self, estimates: Tensor, candidates: Tensor) -> Tensor:
        """[B, B'] how alike estimates and candidates are."""
        scores: Tensor = self.similarity(estimates, candidates)
        return scores

    def probabilities(self, estimates: Tensor, candidates: Tensor) -> Tensor:
        """[B, B'] probability of each candidate."""
        return self.scores(estimates, candidates).softmax(dim=1)

    def _cross_entropy(self, scores: Tensor, alike: Tensor) -> Tensor:
        """Mean over rows [B, B']; all that is right is so with equal weight."""
        if self.duplicates == "positive":
            return functional.cross_entropy(scores, alike / alike.sum(dim=1, keepdim=True))
        if self.duplicates == "mask":
            scores = scores.masked_fill(_others(alike), -torch.inf)
        return functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))

    def _sigmoid_loss(self, scores: Tensor, alike: Tensor) -> Tensor:
        """Binary cross-entropy of all pairs, summed over candidates, mean over estimates."""
        losses = functional.binary_cross_entropy_with_logits(
            scores, alike.to(scores.dtype), reduction="none"
        )
        if self.duplicates == "mask":
            losses = losses.masked_fill(_others(alike), 0.0)
        return losses.sum(dim=1).mean()


def _others(alike: Tensor) -> Tensor:
    """Pairs [B, B'] that are alike, without those that belong together."""
    return alike.clone().fill_diagonal_(False)
