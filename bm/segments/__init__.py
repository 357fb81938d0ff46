"""Segments: windows of brain signal and of what was heard in them.

Throughout, ``meg`` names the brain signal of a segment, be it MEG or EEG.
"""

from bm.segments.batch import SegmentBatch, align_to_delay
from bm.segments.dataset import SegmentDataset
from bm.segments.loader import SegmentLoader
from bm.segments.prepare import Prepared, prepare
from bm.segments.splits import Splits, build_splits
from bm.segments.store import SignalStore
from bm.segments.windows import WindowRule, find_windows

__all__ = [
    "Prepared",
    "SegmentBatch",
    "SegmentDataset",
    "SegmentLoader",
    "SignalStore",
    "Splits",
    "WindowRule",
    "align_to_delay",
    "build_splits",
    "find_windows",
    "prepare",
]
