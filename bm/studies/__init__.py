"""Studies: each file turns one dataset into `Recording`s."""

from bm.studies import bids, synthetic
from bm.studies.base import Study, from_selection, register, registry

__all__ = ["Study", "bids", "from_selection", "register", "registry", "synthetic"]
