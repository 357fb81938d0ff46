"""Studies: each file turns one dataset into `Recording`s."""

from bm.studies import synthetic
from bm.studies.base import Study, from_selection, register, registry

__all__ = ["Study", "from_selection", "register", "registry", "synthetic"]
