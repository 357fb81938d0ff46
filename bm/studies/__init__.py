"""Studies: each file turns one dataset into `Recording`s."""

from bm.studies import bids, brennan2019, broderick2019, gwilliams2022, schoffelen2019, synthetic
from bm.studies.base import Study, from_selection, register, registry

__all__ = [
    "Study",
    "bids",
    "brennan2019",
    "broderick2019",
    "from_selection",
    "gwilliams2022",
    "register",
    "registry",
    "schoffelen2019",
    "synthetic",
]
