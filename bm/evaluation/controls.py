"""Controls: what the trained decoder finds where it can't, or shouldn't, know the answer.

Enters: a test split and a trained decoder. Leaves: one accuracy for each control, to be held
against the real one. Nothing is trained again: the brain signal of each segment is replaced, while
the sounds, the candidates and the decoder stay. (`bm.segments.controls` takes the answer out of the
*training* data.)
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from bm.core.hashing import text_id
from bm.evaluation.retrieval import Retrieval
from bm.evaluation.statistics import Interval, crossed_interval, hits, interval
from bm.metrics import chance
from bm.segments import Prepared, SegmentBatch, SegmentDataset, SignalStore
from bm.segments.controls import apply_control

REAL = "real"
AT_CHANCE, AS_REAL = "chance", "as real"
MIN_SPEECH = 0.5
"""Share of a window that words must fill to be kept when silent segments are removed."""


@dataclass(frozen=True)
class Outcome:
    """Accuracy of one control.

    Attributes
    ----------
    name, expected : which control, and whether it should be at `AT_CHANCE` or `AS_REAL`.
    k, accuracy, chance : top-k accuracy, and that of guessing.
    interval : 95 %, over subjects and sentences, or over subjects; None for fewer than three.
    n_segments, n_candidates : how many.
    """

    name: str
    expected: str
    k: int
    accuracy: float
    chance: float
    interval: Interval | None
    n_segments: int
    n_candidates: int

    @property
    def verdict(self) -> str:
        """Whether the accuracy is explained by chance."""
        if self.interval is None:
            return "too few subjects to tell"
        if self.chance in self.interval:
            return "at chance"
        return "above chance" if self.accuracy > self.chance else "below chance"

    @property
    def is_suspicious(self) -> bool:
        """Above chance, where the answer was taken out."""
        return self.expected == AT_CHANCE and self.verdict == "above chance"


def outcome(name: str, expected: str, retrieval: Retrieval, k: int) -> Outcome:
    """Accuracy of a retrieval with its interval."""
    found = best_interval(retrieval, k)
    n_candidates = retrieval.n_candidates
    return Outcome(
        name,
        expected,
        k,
        retrieval.accuracy(k),
        chance(k, n_candidates),
        found,
        len(retrieval.table),
        n_candidates,
    )


def best_interval(retrieval: Retrieval, k: int) -> Interval | None:
    """Interval over subjects and sentences; over subjects alone where there are no sentences."""
    table = retrieval.table
    values, subjects = hits(table["rank"], k), table["subject"].to_numpy()
    if "word_sequence" in table and table["word_sequence"].notna().all():
        found = crossed_interval(values, subjects, table["word_sequence"].to_numpy(str))
        if found is not None:
            return found
    return interval(values, subjects)


def outcome_table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """One row for each control."""
    return pd.DataFrame(
        [
            {
                "control": one.name,
                "expected": one.expected,
                "k": one.k,
                "accuracy": one.accuracy,
                "low": np.nan if one.interval is None else one.interval.low,
                "high": np.nan if one.interval is None else one.interval.high,
                "chance": one.chance,
                "verdict": one.verdict,
                "n_segments": one.n_segments,
                "n_candidates": one.n_candidates,
            }
            for one in outcomes
        ]
    )


def heard_with(batches: Iterable[SegmentBatch], source: SegmentDataset) -> Iterator[SegmentBatch]:
    """The same segments with the brain signals that `source` has in the same rows."""
    for batch in batches:
        yield replace(batch, meg=source.gather_meg(batch.row).to(batch.meg.device))


def noise(dataset: SegmentDataset, prepared: Sequence[Prepared], seed: int) -> SegmentDataset:
    """Noise with the spectra and cross-spectra of each recording."""
    changed = apply_control(prepared, "noise", seed)
    store = SignalStore([item.signal for item in changed], "host")
    return SegmentDataset(
        dataset.table, store, dataset.stimuli, dataset.n_times, dataset.n_baseline
    )


def shuffled(dataset: SegmentDataset, seed: int) -> SegmentDataset:
    """Each segment with the signal of a random one of the same recording."""
    first = dataset.table["first"].to_numpy(np.int64).copy()
    for recording, rows in dataset.table.groupby("recording").indices.items():
        generator = np.random.default_rng([seed, text_id("shuffled pairs", str(recording))])
        first[rows] = generator.permutation(first[rows])
    return _beginning_at(dataset, first)


def shifted(dataset: SegmentDataset, lengths: Sequence[int], n_samples: int) -> SegmentDataset:
    """Signals from so many samples later (or earlier), as far as the recordings go.

    Parameters
    ----------
    dataset : the split.
    lengths : samples of each recording.
    n_samples : shift; negative: earlier.
    """
    first = dataset.table["first"].to_numpy(np.int64) + n_samples
    last = np.asarray(lengths)[dataset.table["recording"].to_numpy(np.int64)] - dataset.n_times
    return _beginning_at(dataset, first.clip(0, last))


def silence(
    dataset: SegmentDataset, prepared: Sequence[Prepared], seed: int
) -> SegmentDataset | None:
    """Signals of the same recording from moments without sound or words: the noise floor.

    None if a recording has no such moment as long as a segment.
    """
    first = dataset.table["first"].to_numpy(np.int64).copy()
    for recording, rows in dataset.table.groupby("recording").indices.items():
        index = int(str(recording))
        free = _silent_starts(prepared[index], dataset.n_times)
        if not len(free):
            return None
        generator = np.random.default_rng([seed, text_id("noise floor", str(recording))])
        first[rows] = generator.choice(free, len(rows))
    return _beginning_at(dataset, first)


def without_silence(dataset: SegmentDataset, min_speech: float = MIN_SPEECH) -> SegmentDataset:
    """Only segments of whose samples at least a share belongs to words; so for the candidates."""
    kept = []
    for rows in torch.arange(len(dataset)).split(1024):
        heard = dataset.stimuli.mask[dataset.samples(rows)].float().mean(dim=1)
        kept.append((heard >= min_speech).cpu())
    table = dataset.table[torch.cat(kept).numpy()] if kept else dataset.table
    return _with_table(dataset, table)


def some_segments(dataset: SegmentDataset, n: int, seed: int) -> SegmentDataset:
    """At most `n` random segments, in order."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    return _with_table(dataset, dataset.table.iloc[order[:n].sort().values.numpy()])


def _beginning_at(dataset: SegmentDataset, first: np.ndarray) -> SegmentDataset:
    """The same segments with windows that begin elsewhere."""
    return _with_table(dataset, dataset.table.assign(first=first))


def _with_table(dataset: SegmentDataset, table: pd.DataFrame) -> SegmentDataset:
    return SegmentDataset(
        table, dataset.store, dataset.stimuli, dataset.n_times, dataset.n_baseline
    )


def _silent_starts(item: Prepared, n_times: int) -> np.ndarray:
    """First samples of windows in which no sound plays and no word is heard or read."""
    rate, n_samples = item.signal.sample_rate, item.signal.n_samples
    busy = np.zeros(n_samples + 1)
    stimuli = item.events[item.events["kind"].isin(["sound", "word", "phoneme"])]
    begin = np.floor(stimuli["start"].to_numpy(float) * rate).astype(int).clip(0, n_samples)
    stop = stimuli["start"].to_numpy(float) + stimuli["duration"].to_numpy(float)
    np.add.at(busy, begin, 1)
    np.add.at(busy, np.ceil(stop * rate).astype(int).clip(0, n_samples), -1)
    total = np.concatenate([[0], np.cumsum(np.cumsum(busy[:-1]) > 0)])
    return np.flatnonzero(total[n_times:] == total[:-n_times])
