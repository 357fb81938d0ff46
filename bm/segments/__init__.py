"""Segments: windows of brain signal and of what was heard in them.

Throughout, ``meg`` names the brain signal of a segment, be it MEG or EEG.

Names are imported when they are asked for: batches can be gathered where neither pandas nor MNE is
installed, and no part is loaded before it is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bm.segments.batch import Prediction, SegmentBatch, align_to_delay
    from bm.segments.dataset import SegmentDataset
    from bm.segments.gather import SegmentGatherer
    from bm.segments.loader import SegmentLoader
    from bm.segments.prepare import Prepared
    from bm.segments.splits import Splits, build_splits
    from bm.segments.store import SignalStore
    from bm.segments.windows import WindowRule, find_windows

__all__ = [
    "Prediction",
    "Prepared",
    "SegmentBatch",
    "SegmentDataset",
    "SegmentGatherer",
    "SegmentLoader",
    "SignalStore",
    "Splits",
    "WindowRule",
    "align_to_delay",
    "build_splits",
    "find_windows",
]

_MODULES = {
    "Prepared": "prepare",
    "Prediction": "batch",
    "SegmentBatch": "batch",
    "align_to_delay": "batch",
    "SegmentDataset": "dataset",
    "SegmentGatherer": "gather",
    "SegmentLoader": "loader",
    "Splits": "splits",
    "build_splits": "splits",
    "SignalStore": "store",
    "WindowRule": "windows",
    "find_windows": "windows",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
