"""Studies: each file turns one dataset into `Recording`s."""

from bm.studies import bids, gwilliams2022, synthetic
from bm.studies.base import Study, from_selection, register, registry

__all__ = ["Study", "bids", "from_selection", "gwilliams2022", "register", "registry", "synthetic"]
