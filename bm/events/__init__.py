"""What was heard and when: one table of typed events per recording, its blocks and their split."""

from bm.events.blocks import assign_splits, create_blocks, merge_blocks
from bm.events.sounds import cut_sounds_at_blocks
from bm.events.table import UNLABELLED, match_events, read_events, validate_events, write_events

__all__ = [
    "UNLABELLED",
    "assign_splits",
    "create_blocks",
    "cut_sounds_at_blocks",
    "match_events",
    "merge_blocks",
    "read_events",
    "validate_events",
    "write_events",
]
