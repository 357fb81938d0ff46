"""How alike an estimate and a candidate are: one formula, for training and for retrieval.

Enters: estimates and candidates [B, F, T]. Leaves: scores [B, V].
"""

import math

import torch
from torch import Tensor, nn

EPSILON = 1e-8
NORMALISED = ("y", "x", "both")
"""What is divided by its norm: the candidates ("y", as published), the estimates, or both."""
SCALE = 1 / 0.07
"""First factor on cosines, where it is learned."""
N_STRETCHES, SHORTEST_STRETCH = 6, 8192
"""Parts that dimensions are multiplied in, in half precision, and what each has at least."""


class Similarity(nn.Module):
    """Inner product of an estimate with a candidate over the candidate's norm [1]_.

    Estimates aren't normalised and there is no temperature: confidence is the length of the
    estimate. Everything below changes that, and is off by default.

    Parameters
    ----------
    window : first and last second that are compared, from the beginning of the segment; None: its
        ends. For responses that don't reach the borders of the window.
    training_window : the same while training; None: as `window`.
    center : subtract each segment's mean, so that a constant offset says nothing.
    pool : compare means over time: what was heard, and not when.
    linear : compare learned projections to so many dimensions, for targets of many correlated ones.
    n_features : F; for `linear`.
    twin : estimates and candidates share one projection; otherwise each has its own.
    normalise : see `NORMALISED`. Cosines ("both") bound the scores, so they need a temperature.
    temperature : learn a factor on the scores, so that confidence isn't tied to a length.
    sample_rate : Hz; for the windows.

    References
    ----------
    .. [1] Défossez et al. 2023, doi:10.1038/s42256-023-00714-5
    """

    def __init__(
        self,
        *,
        window: tuple[float | None, float | None] = (None, None),
        training_window: tuple[float | None, float | None] = (None, None),
        center: bool = False,
        pool: bool = False,
        linear: int | None = None,
        n_features: int | None = None,
        twin: bool = True,
        normalise: str = "y",
        temperature: bool = False,
        sample_rate: float = 1.0,
    ):
        super().__init__()
        if normalise not in NORMALISED:
            raise ValueError(f"normalise={normalise!r}: choose one of {', '.join(NORMALISED)}.")
        self.window = _in_samples(window, sample_rate)
        own = [
            general if value is None else value
            for value, general in zip(training_window, window, strict=True)
        ]
        self.training_window = _in_samples((own[0], own[1]), sample_rate)
        self.center = center
        self.pool = pool
        self.normalise = normalise
        self.project_candidates: nn.Module = nn.Identity()
        self.project_estimates: nn.Module = nn.Identity()
        if linear is not None:
            if n_features is None or linear < 1:
                raise ValueError(f"A projection from {n_features} to {linear} dimensions?")
            self.project_candidates = nn.Conv1d(n_features, linear, 1)
            self.project_estimates = (
                self.project_candidates if twin else nn.Conv1d(n_features, linear, 1)
            )
        first = math.log(SCALE) if normalise == "both" else 0.0
        self.log_scale = nn.Parameter(torch.tensor(first)) if temperature else None

    def forward(self, estimates: Tensor, candidates: Tensor) -> Tensor:
        """[B, V] scores of estimates [B, F, T] and candidates [V, F, T]."""
        check_shapes(estimates, candidates)
        return self.compare(self.embed_estimates(estimates), *self.embed_candidates(candidates))

    def embed_estimates(self, estimates: Tensor) -> Tensor:
        """[B, D] what of the estimates is compared."""
        flat = self._embed(estimates, self.project_estimates)
        return flat if self.normalise == "y" else flat / _norm(flat)[:, None]

    def embed_candidates(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """[V, D] what of the candidates is compared, and [V] what their scores are divided by."""
        flat = self._embed(candidates, self.project_candidates)
        return flat, torch.ones_like(flat[:, 0]) if self.normalise == "x" else _norm(flat)

    def compare(self, estimates: Tensor, candidates: Tensor, norms: Tensor) -> Tensor:
        """[B, V] scores of what `embed_estimates` and `embed_candidates` gave."""
        scores = _product(estimates, candidates) / norms
        return scores if self.log_scale is None else scores * self.log_scale.exp()

    def _embed(self, values: Tensor, project: nn.Module) -> Tensor:
        first, last = self.training_window if self.training else self.window
        values = values[..., first:last]
        if not values.shape[-1]:
            raise ValueError("No samples are left to compare: see clip.tmin and clip.tmax.")
        if self.center:
            values = values - values.mean(dim=(1, 2), keepdim=True)
        values = project(values)
        if self.pool:
            values = values.mean(dim=-1, keepdim=True)
        return values.flatten(1)


def check_shapes(estimates: Tensor, candidates: Tensor) -> None:
    """Raise a ValueError if they can't be compared."""
    if estimates.shape[1:] != candidates.shape[1:]:
        raise ValueError(
            f"Estimates {tuple(estimates.shape)} and candidates {tuple(candidates.shape)} must "
            "have the same features and samples."
        )


def _product(left: Tensor, right: Tensor) -> Tensor:
    """[B, V] inner products of [B, D] and [V, D], in single precision at least."""
    if left.dtype not in (torch.bfloat16, torch.float16):
        if left.requires_grad or len(left) >= len(right):  # gradients of ranks as of one process
            return left @ right.T
        return (right @ left.T).T  # the longer matrix, at the left, isn't rearranged: faster
    total = torch.zeros(len(right), len(left), device=left.device)
    # A product is rounded to the type of its factors: sums of several lose less. Long ones are
    # faster, and so are those with the longer matrix at the left.
    stretch = max(SHORTEST_STRETCH, -(-left.shape[1] // N_STRETCHES))
    for one, other in zip(right.split(stretch, 1), left.split(stretch, 1), strict=True):
        total += one @ other.T
    return total.T


def _norm(flat: Tensor) -> Tensor:
    return flat.norm(dim=1) + EPSILON


def _in_samples(
    window: tuple[float | None, float | None], sample_rate: float
) -> tuple[int | None, int | None]:
    first, last = (None if second is None else round(second * sample_rate) for second in window)
    if (first or 0) < 0 or (last is not None and last <= (first or 0)):
        raise ValueError(
            f"The window {window} isn't one: give seconds from the beginning of the segment, the "
            "first before the last."
        )
    return first, last
