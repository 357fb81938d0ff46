"""From labels to classes, among the features of segments."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class OneHot(nn.Module):
    """Replace the label of a class among the features by one channel per class.

    Parameters
    ----------
    first : channel of the label.
    n_classes : K; labels are whole numbers from 0 to K - 1.
    """

    def __init__(self, first: int, n_classes: int):
        super().__init__()
        self.first = first
        self.n_classes = n_classes

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C - 1 + K, T]: 1 in the channel of the class, 0 in the others."""
        before, label, after = x.split([self.first, 1, x.shape[1] - self.first - 1], dim=1)
        classes = functional.one_hot(label[:, 0].long(), self.n_classes).transpose(1, 2)
        return torch.cat([before, classes.to(x.dtype), after], dim=1)
