"""Features that are classes, such as parts of speech: their loss, weights and accuracy.

Enter: estimates in which a class has a channel of its own, its logit, and targets in which that is
1 or 0 (`bm.models.OneHot`). Leave: a loss, and accuracies. Continuous features beside them are
regressed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bm import distrib
from bm.losses import RegressionLoss
from bm.metrics import OnlineAccuracy
from bm.segments import Prediction, SegmentBatch, SegmentDataset

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Columns:
    """Where a feature stands in estimates and targets.

    Attributes
    ----------
    name : of the feature.
    first, n : its first channel, and how many there are.
    is_class : they are classes.
    """

    name: str
    first: int
    n: int
    is_class: bool

    def of(self, values: Tensor) -> Tensor:
        """Part [B, n, T] of [B, F, T]."""
        return values[:, self.first : self.first + self.n]


class RegressionClassificationLoss(nn.Module):
    """Cross-entropy of features that are classes, L1 of the others.

    Each feature counts alike, however many channels it has.

    Parameters
    ----------
    columns : of all features, in their order.
    """

    weights: Tensor

    def __init__(self, columns: Sequence[Columns]):
        super().__init__()
        self.columns = list(columns)
        self.regression = RegressionLoss(1)
        self.register_buffer("weights", torch.ones(sum(one.n for one in columns)))

    def forward(self, estimates: Tensor, candidates: Tensor, mask: Tensor | None = None) -> Tensor:
        """Loss of B estimates [B, F, T] against B targets; mask [B, 1, T]."""
        targets = candidates[: len(estimates)]
        losses = []
        for one in self.columns:
            pair = one.of(estimates), one.of(targets)
            if one.is_class:
                weights = self.weights[one.first : one.first + one.n]
                losses.append(_cross_entropy(*pair, weights, mask))
            else:
                losses.append(self.regression(*pair, mask))
        return torch.stack(losses).mean()

    def weigh(self, train: SegmentDataset, only_heard: bool = False) -> None:
        """Let all classes of a feature count alike, however rare they are in training segments.

        The weight of a class is the inverse of its share, 1 on average over samples; a class that
        never occurs has none, as nothing can be learned of it.

        Parameters
        ----------
        train : training segments.
        only_heard : count samples in which a word is heard.

        Raises
        ------
        ValueError : no feature is a class.
        """
        if not any(one.is_class for one in self.columns):
            names = ", ".join(one.name for one in self.columns)
            raise ValueError(
                f"optim.use_weighting=true weighs classes, but none of {names} (dset.features) has "
                "any: leave it off."
            )
        stimuli = train.stimuli
        seen = torch.zeros_like(stimuli.mask, dtype=torch.float64)  # how often each sample is
        for rows in torch.arange(len(train)).split(ROWS_AT_ONCE):
            seen += torch.bincount(train.samples(rows).flatten(), minlength=len(seen))
        if only_heard:
            seen *= stimuli.mask
        tables = zip(stimuli.rows, stimuli.timelines, strict=True)
        for one, (table, timeline) in zip(self.columns, tables, strict=True):
            if one.is_class:
                labels = table[:, 0].long()[timeline]
                counts = seen.new_zeros(one.n).index_add(0, labels, seen)
                weights = counts.sum() / ((counts > 0).sum() * counts)
                self.weights[one.first : one.first + one.n] = weights.masked_fill(counts == 0, 0)


@torch.no_grad()
def class_accuracy(
    batches: Iterable[SegmentBatch],
    predict: Callable[[SegmentBatch], Prediction],
    columns: Sequence[Columns],
) -> dict[str, float]:
    """Share of samples whose class is told right, of all ranks together.

    Parameters
    ----------
    batches : of a split.
    predict : estimates and targets of a batch.
    columns : of all features.

    Returns
    -------
    ``NAME_accuracy`` over all samples and ``NAME_macro_accuracy``, the mean over classes, of each
    feature that is a class.
    """
    online = {one: OnlineAccuracy(one.n) for one in columns if one.is_class}
    for batch in batches:
        prediction = predict(batch)
        for one, accuracy in online.items():
            labels = one.of(prediction.target).argmax(dim=1, keepdim=True)
            accuracy.update(one.of(prediction.estimate), labels)
    found = {}
    for one, accuracy in online.items():
        for name in ("n_seen", "n_right"):
            of_all = distrib.total(getattr(accuracy, name).tolist())
            setattr(accuracy, name, torch.tensor(of_all, dtype=torch.float64))
        values = accuracy.compute()
        found[f"{one.name}_accuracy"], found[f"{one.name}_macro_accuracy"] = values
    return found


def _cross_entropy(logits: Tensor, target: Tensor, weights: Tensor, mask: Tensor | None) -> Tensor:
    """Weighted mean over the samples of [B, K, T] where the mask [B, 1, T] is 1."""
    of_truth = (logits.log_softmax(dim=1) * target).sum(dim=1, keepdim=True)
    weight = (weights[:, None] * target).sum(dim=1, keepdim=True)
    weight = weight if mask is None else weight * mask
    return -(of_truth * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
