"""What may be left out of the sensors before anything else happens: at random, or for good."""

import torch
from torch import Tensor, nn

from bm.core.layout import NO_POSITION

N_POINTS = 576
"""About how many points the chance of being dropped is averaged over."""


class SensorDropout(nn.Module):
    """Silence, in training, all sensors within a radius of one random point, the same for a batch.

    A sensor without a position is never dropped: where it is isn't known.

    Parameters
    ----------
    radius : in units of the layout's width.
    rescale : divide each sensor by its chance of being kept, so that its mean is that without
        dropout.
    """

    def __init__(self, radius: float, rescale: bool = True):
        super().__init__()
        self.radius = radius
        self.rescale = rescale

    def forward(self, meg: Tensor, layouts: Tensor, layout_index: Tensor) -> Tensor:
        """[B, C, T], [L, C, n_axes] and [B] to [B, C, T]."""
        if not self.training:
            return meg
        absent = is_absent(layouts)
        near = is_near(layouts, random_point(layouts), self.radius) & ~absent
        factors = (~near).to(meg.dtype)  # [L, C]
        if self.rescale:
            chance = is_near(layouts[:, :, None], _possible_points(layouts), self.radius)
            kept = 1 - chance.to(meg.dtype).mean(dim=-1)
            factors = torch.where(absent | (kept == 0), factors, factors / kept)
        return meg * factors[layout_index][:, :, None]

    def extra_repr(self) -> str:
        """Settings, for the printed model."""
        return f"radius={self.radius}, rescale={self.rescale}"


class SensorSubset(nn.Module):
    """Keep so many sensors of each layout, chosen once and for all, and silence the others.

    It tells what the number of sensors is worth, as in the comparison of MEG with EEG [1]_. The
    choice depends on the sensors' order and on nothing else: all experiments make the same.

    Parameters
    ----------
    n_kept : sensors with a position that are kept in each layout; all, if it has fewer.
    n_sensors : C.

    References
    ----------
    .. [1] Défossez et al. 2023, doi:10.1038/s42256-023-00714-5
    """

    order: Tensor

    def __init__(self, n_kept: int, n_sensors: int):
        super().__init__()
        if not 0 < n_kept <= n_sensors:
            raise ValueError(
                f"subsample_meg_channels={n_kept}, but there are {n_sensors} sensors: choose 1 to "
                f"{n_sensors}, or 0 to keep them all."
            )
        self.n_kept = n_kept
        order = torch.randperm(n_sensors, generator=torch.Generator().manual_seed(0))
        self.register_buffer("order", order, persistent=False)

    def forward(self, meg: Tensor, layouts: Tensor, layout_index: Tensor) -> tuple[Tensor, Tensor]:
        """Signals [B, C, T] and layouts [L, C, n_axes] without the sensors that aren't kept."""
        present = ~is_absent(layouts)
        present = present | ~present.any(dim=-1, keepdim=True)  # no position known: all may be kept
        order = torch.where(present, self.order, len(self.order))
        last = order.sort(dim=-1).values[:, self.n_kept - 1, None]
        kept = present & (order <= last)  # [L, C]
        silenced = meg * kept[layout_index][:, :, None].to(meg.dtype)
        return silenced, torch.where(kept[:, :, None], layouts, NO_POSITION)

    def extra_repr(self) -> str:
        """Settings, for the printed model."""
        return f"{self.n_kept} of {len(self.order)}"


def is_absent(layouts: Tensor) -> Tensor:
    """[L, C] true for the sensors without a position in layouts [L, C, n_axes]."""
    return (layouts < NO_POSITION / 2).all(dim=-1)  # at any precision


def is_near(layouts: Tensor, points: Tensor, radius: float) -> Tensor:
    """True where a sensor [..., n_axes] is within `radius` of a point [..., n_axes]."""
    return (layouts - points).norm(dim=-1) <= radius


def random_point(layouts: Tensor) -> Tensor:
    """A point [n_axes]: anywhere in the plane; in 3-D, where most of space is empty, a sensor.

    It is drawn on the CPU, so that it doesn't depend on the device.
    """
    if layouts.shape[-1] == 2:
        return torch.rand(2).to(layouts.device)
    places = _places(layouts)
    return places[torch.randint(len(places), (1,))[0]]


def _possible_points(layouts: Tensor) -> Tensor:
    """Points [P, n_axes], evenly among all that `random_point` may give."""
    if layouts.shape[-1] == 2:
        n = round(N_POINTS**0.5)
        middle = (torch.arange(n, device=layouts.device, dtype=layouts.dtype) + 0.5) / n
        return torch.cartesian_prod(middle, middle)
    places = _places(layouts)
    return places[:: max(1, len(places) // N_POINTS)]


def _places(layouts: Tensor) -> Tensor:
    """Places [P, n_axes] of all sensors that have one; a sensor without, if none has."""
    absent = is_absent(layouts)
    return layouts[absent] if absent.all() else layouts[~absent]
