"""Which windows of a recording become segments of a split."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bm.events import UNLABELLED, match_events

LABELS = ("word", "word_index", "word_sequence", "sequence_id", "condition", "kind", "language")


@dataclass(frozen=True)
class WindowRule:
    """Where windows are anchored and how far they reach.

    Attributes
    ----------
    tmin, tmax : seconds around the anchor; both ends belong to the window.
    condition : a number: an anchor every so many seconds; the name of an event kind ("word"): at
        the onset of each; any text with "=": at the onset of each event that matches this pandas
        query.
    ignore_start_in_block, ignore_end_in_block : only the anchor has to lie inside the block, on
        that side.
    """

    tmin: float = -0.5
    tmax: float = 2.5
    condition: float | str = 0.5
    ignore_start_in_block: bool = False
    ignore_end_in_block: bool = False

    def __post_init__(self) -> None:
        if self.tmin >= self.tmax:
            raise ValueError(f"dset.tmin={self.tmin} s must come before dset.tmax={self.tmax} s.")
        if not isinstance(self.condition, str) and self.condition <= 0:
            raise ValueError(f"condition={self.condition}: the stride in seconds must be positive.")

    def n_times(self, sample_rate: float) -> int:
        """Samples T in a window: 361 for -0.5..2.5 s at 120 Hz."""
        return round(self.tmax * sample_rate) - round(self.tmin * sample_rate) + 1


def find_windows(
    events: pd.DataFrame,
    blocks: pd.DataFrame,
    rule: WindowRule,
    n_samples: int,
    sample_rate: float,
) -> pd.DataFrame:
    """Windows that fit into the recording and, whole, into one of the blocks.

    None overlaps an event of kind "unlabelled": nothing tells what was heard there.

    Parameters
    ----------
    events : event table of the recording.
    blocks : blocks of one split.
    rule : where windows are.
    n_samples, sample_rate : length and rate of the brain signal.

    Returns
    -------
    DataFrame, one row per window in time order: ``time`` of the anchor in seconds, ``first`` sample
    of the window, ``event`` (row of `events` that anchors it, -1 for a stride) and that event's
    labels. Of two anchors on one sample the first is kept.

    Raises
    ------
    ValueError : the rule's query doesn't parse, or names a column that isn't there.
    """
    last_time = (n_samples - 1) / sample_rate
    tolerance = 0.5 / sample_rate
    times, rows = _anchors(events, rule, last_time)
    begin, end = times + rule.tmin, times + rule.tmax
    keep = (begin >= 0) & (end < last_time + tolerance)
    block_start = blocks["start"].to_numpy(float)
    block_stop = block_start + blocks["duration"].to_numpy(float)
    from_time = times if rule.ignore_start_in_block else begin
    to_time = times + tolerance if rule.ignore_end_in_block else end - tolerance
    inside = (from_time[:, None] >= block_start) & (to_time[:, None] < block_stop)
    keep &= inside.any(axis=1)
    unlabelled = events[events["kind"] == UNLABELLED]
    unlabelled_start = unlabelled["start"].to_numpy(float)
    unlabelled_stop = unlabelled_start + unlabelled["duration"].to_numpy(float)
    keep &= ~((begin[:, None] < unlabelled_stop) & (end[:, None] > unlabelled_start)).any(axis=1)
    first = np.round(times * sample_rate).astype(np.int64) + round(rule.tmin * sample_rate)
    keep &= (first >= 0) & (first + rule.n_times(sample_rate) <= n_samples)
    labels = events[[label for label in LABELS if label in events]].reindex(rows[keep])
    columns = {"time": times[keep], "first": first[keep], "event": rows[keep]}
    columns.update({str(name): labels[name].to_numpy() for name in labels})
    windows = pd.DataFrame(columns)
    return windows.drop_duplicates("first", ignore_index=True)


def _anchors(
    events: pd.DataFrame, rule: WindowRule, last_time: float
) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds, and the rows of `events` they come from (-1 for none)."""
    if not isinstance(rule.condition, str):
        times = np.arange(0, np.ceil(last_time / rule.condition)) * float(rule.condition)
        return times[times < last_time], np.full((times < last_time).sum(), -1)
    if "=" in rule.condition:
        chosen = events[match_events(events, rule.condition, "condition", "the events")]
    else:
        chosen = events[events["kind"] == rule.condition]
    return chosen["start"].to_numpy(float), chosen.index.to_numpy()
