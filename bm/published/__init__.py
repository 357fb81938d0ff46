"""Checkpoints of the published code: read without running any of it, and turned into ours."""

from bm.published.convert import import_published
from bm.published.reader import StandIn, read_published

__all__ = ["StandIn", "import_published", "read_published"]
