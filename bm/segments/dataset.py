"""Segments of one split: a table of windows, and the batches gathered from it."""

import numpy as np
import pandas as pd
import torch

from bm.segments.gather import SegmentGatherer, Stimuli, Windows
from bm.segments.store import SignalStore


class SegmentDataset(SegmentGatherer):
    """Segments of one split.

    Parameters
    ----------
    table : one row per segment: ``recording``, ``subject``, ``layout`` (indices), ``first`` sample,
        and the labels of the anchoring event.
    store, stimuli, n_times, n_baseline : see `SegmentGatherer`.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        store: SignalStore,
        stimuli: Stimuli,
        n_times: int,
        n_baseline: int,
    ):
        self.table = table.reset_index(drop=True)
        columns = {
            name: torch.tensor(self.table[name].to_numpy(np.int64))
            for name in Windows.__dataclass_fields__
        }
        super().__init__(Windows(**columns), store, stimuli, n_times, n_baseline)
