"""Leak audit: what would make an accuracy unbelievable, looked for before anything is trained.

Enters: the three splits, and the windows that the scaler was fitted on. Leaves: findings, each with
the recording and the moment that it is about. In this field noise has scored 66 % through a leak.

==========  ======================================================================================
stimulus    Does anybody hear in one split what anybody hears in another? By the content of the
            sound, over all subjects and sessions; by text where there is no sound.
windows     Does each segment lie within one block of its own split?
context     Does a speech model hear a piece of sound that belongs to more than one split?
scaler      Was the scale of signals and features estimated on training segments alone?
candidates  Are there candidates with equal features, which nothing can tell apart?
text        How many sentences and words of the test split also occur in training? Words must; a
            sentence of several words that was recorded anew is a matter of taste.
==========  ======================================================================================
"""

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bm.core.cache import Cache
from bm.core.messages import DataError, check_choice
from bm.evaluation.candidates import Unique
from bm.evaluation.stimulus import Heard, find_shared_sound, find_shared_text, heard_sounds
from bm.events.sounds import MARGIN
from bm.features.speech import PretrainedSpeech
from bm.segments import SegmentDataset, Splits

logger = logging.getLogger(__name__)

LEVELS = ("error", "warn", "off")
PAIRS = (("train", "test"), ("train", "valid"), ("valid", "test"))
MIN_WORDS = 4
"""Words of a sentence that is worth telling when it is in two splits; shorter ones are common."""
N_NAMED = 3
REMEDY = (
    "dset.block_grouping=stimulus_time cuts blocks alike for everyone; to repeat a published "
    "experiment with the leak that it had, set audit=warn, and say so."
)


class LeakError(DataError):
    """The test split isn't independent of training."""


@dataclass(frozen=True)
class Finding:
    """One answer of the audit.

    Attributes
    ----------
    check : name of the question (see the module).
    message : what was found, and where.
    is_leak : whether accuracies can't be believed because of it.
    """

    check: str
    message: str
    is_leak: bool = False

    def __str__(self) -> str:
        return f"{'LEAK' if self.is_leak else 'ok'}  {self.check}: {self.message}"


@dataclass(frozen=True)
class Audit:
    """All answers, in the order of the questions."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def leaks(self) -> list[Finding]:
        """Those that spoil the accuracy."""
        return [finding for finding in self.findings if finding.is_leak]

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def audit_splits(splits: Splits, fitted_on: Tensor, cache: Cache | None = None) -> Audit:
    """Answer all questions about a set of splits.

    Parameters
    ----------
    splits : train, valid and test.
    fitted_on : [n, 2] recording and first sample of the windows that the scaler saw
        (`bm.scaling.BatchScaler.fitted_on`).
    cache : keeps the landmarks of sounds; None: they are found again each time.
    """
    heard = heard_sounds(splits)
    return Audit(
        [
            *_stimulus(splits, heard, cache),
            _windows(splits),
            _context(splits),
            _scaler(splits, fitted_on),
            _candidates(splits),
            _text(splits),
        ]
    )


def enforce(audit: Audit, level: str) -> None:
    """Log an audit, and stop if it found a leak.

    Parameters
    ----------
    audit : what was found.
    level : "error" or "warn" (see `LEVELS`).

    Raises
    ------
    LeakError : there is a leak and the level is "error".
    """
    check_choice("audit", level, LEVELS)
    for finding in audit.findings:
        logger.log(logging.WARNING if finding.is_leak else logging.INFO, "Audit: %s", finding)
    if audit.leaks and level == "error":
        listed = "\n  ".join(f"{leak.check}: {leak.message}" for leak in audit.leaks)
        raise LeakError(
            f"The audit found {len(audit.leaks)} leak(s) between training and test:\n  {listed}\n"
            "An accuracy measured like this means nothing. Repair the data or the splits; to train "
            "all the same, set audit=warn."
        )


def _stimulus(splits: Splits, heard: dict[str, list[Heard]], cache: Cache | None) -> list[Finding]:
    found = []
    n_silent = sum(not any(item.events["kind"] == "sound") for item in splits.prepared)
    for one, other in PAIRS:
        shared = find_shared_sound(heard[one], heard[other], cache)
        shared += find_shared_text(splits, one, other, MIN_WORDS)
        if shared:
            names = [stretch.describe(splits.recordings, one, other) for stretch in shared]
            listed = _listed(names)
            message = f"{one} and {other} share {len(shared)} stretch(es): {listed}. ({REMEDY})"
            found.append(Finding("stimulus", message, is_leak=True))
    if not found:
        n_files = len({stretch.content for group in heard.values() for stretch in group})
        by_text = f"; {n_silent} recording(s) without sound, by their sentences" * (n_silent > 0)
        found.append(
            Finding("stimulus", f"no stretch of {n_files} sound file(s) is in two splits{by_text}")
        )
    return found


def _windows(splits: Splits) -> Finding:
    outside, n_windows = [], 0
    for split, dataset in splits.datasets.items():
        n_windows += len(dataset)
        table = dataset.table
        for row in np.flatnonzero(~inside_blocks(splits, split, _places(table), dataset.n_times)):
            recording, time = table["recording"].iloc[row], table["time"].iloc[row]
            outside.append(f"{splits.recordings[recording]} at {time:.3f} s ({split})")
    if outside:
        message = f"{len(outside)} segment(s) reach beyond a block of their split: "
        return Finding("windows", message + _listed(outside), is_leak=True)
    return Finding("windows", f"all {n_windows:,} segments lie within a block of their split")


def _context(splits: Splits) -> Finding:
    models = [
        feature.name
        for feature in splits.datasets["train"].stimuli.features
        if isinstance(feature, PretrainedSpeech)
    ]
    if not models:
        return Finding("context", "no feature hears more than the moment itself")
    across = []
    sound: Any  # a named tuple of the table's columns
    for item in splits.prepared:
        for sound in item.events[item.events["kind"] == "sound"].itertuples():
            touched = _splits_of(item.blocks, sound.start, sound.start + sound.duration)
            if len(touched) > 1:
                place = f"{item.recording} at {sound.start:.3f} s, {sound.duration:.1f} s long"
                across.append(f"{place} ({' and '.join(sorted(touched))})")
    if across:
        message = (
            f"{', '.join(models)} hears {len(across)} piece(s) of sound over the border of a "
            f"split: {_listed(across)}. (dset.split_wav_as_block=true cuts them.)"
        )
        return Finding("context", message, is_leak=True)
    return Finding("context", f"{', '.join(models)} hears nothing beyond a split")


def _scaler(splits: Splits, fitted_on: Tensor) -> Finding:
    if not len(fitted_on):
        return Finding(
            "scaler", "unknown: this checkpoint doesn't say what its scale was fitted on"
        )
    places = fitted_on.cpu().numpy()
    known = inside_blocks(splits, "train", places, splits.datasets["train"].n_times)
    if known.all():
        return Finding("scaler", f"fitted on {len(places):,} training windows alone")
    rate = splits.prepared[0].signal.sample_rate
    names = [
        f"{splits.recordings[recording]} at {first / rate:.3f} s"
        for recording, first in places[~known]
    ]
    message = f"{len(names)} of {len(places)} windows that it was fitted on aren't training: "
    return Finding("scaler", message + _listed(names), is_leak=True)


def _candidates(splits: Splits) -> Finding:
    dataset = splits.datasets["test"]
    first = Unique.of(dataset).first
    features = _feature_rows(dataset, first)
    _, inverse, counts = np.unique(features, axis=0, return_inverse=True, return_counts=True)
    twins = np.flatnonzero(counts[inverse.reshape(-1)] > 1)
    if not len(twins):
        return Finding("candidates", f"{len(first):,} candidates, no two with equal features")
    table = dataset.table.iloc[first[twins]]
    names = [
        f"{splits.recordings[recording]} at {time:.3f} s"
        for recording, time in zip(table["recording"], table["time"], strict=True)
    ]
    return Finding(
        "candidates",
        f"{len(twins)} of {len(first):,} have the features of another (ties count half): "
        f"{_listed(names)}",
    )


def _text(splits: Splits) -> Finding:
    train, test = (splits.datasets[split].table for split in ("train", "test"))
    if "word" not in test:
        return Finding("text", "the test segments have no words")
    heard = pd.concat(
        [_words_in(splits, "train"), _words_in(splits, "test")], keys=["train", "test"]
    )
    words = {split: set(heard.loc[split]["word"].str.lower()) for split in ("train", "test")}
    sentences = {
        split: set(heard.loc[split]["word_sequence"].dropna())
        if "word_sequence" in heard
        else set()
        for split in ("train", "test")
    }
    shared_words = len(words["train"] & words["test"])
    shared = sorted(sentences["train"] & sentences["test"])
    long = [text for text in shared if len(text.split()) >= MIN_WORDS]
    parts = [
        f"{shared_words} of {len(words['test'])} test words",
        f"{len(shared)} of {len(sentences['test'])} test sentences also occur in training",
    ]
    named = f" (of {MIN_WORDS} words or more: {_listed([repr(text[:60]) for text in long])})"
    counted = f"{len(train):,} training and {len(test):,} test segments"
    return Finding("text", f"{', '.join(parts)}{named if long else ''}; {counted}")


def inside_blocks(splits: Splits, split: str, places: np.ndarray, n_times: int) -> np.ndarray:
    """[n] whether windows lie, to a sample, within one block of a split.

    Parameters
    ----------
    splits, split : which blocks.
    places : [n, 2] recording and first sample.
    n_times : samples of a window.
    """
    inside = np.zeros(len(places), dtype=bool)
    for recording in np.unique(places[:, 0]):
        item = splits.prepared[recording]
        blocks = item.blocks[item.blocks["split"] == split]
        begin = blocks["start"].to_numpy(float) * item.signal.sample_rate
        end = begin + blocks["duration"].to_numpy(float) * item.signal.sample_rate
        own = places[:, 0] == recording
        first = places[own, 1][:, None]
        inside[own] = ((first >= begin - 1) & (first + n_times - 1 <= end + 1)).any(axis=1)
    return inside


def _places(table: pd.DataFrame) -> np.ndarray:
    """[n, 2] recording and first sample of each segment."""
    return table[["recording", "first"]].to_numpy(np.int64)


def _splits_of(blocks: pd.DataFrame, begin: float, end: float) -> set[str]:
    """Splits of the blocks of which at least `MARGIN` lies between two moments."""
    starts = blocks["start"].to_numpy(float)
    stops = starts + blocks["duration"].to_numpy(float)
    shared = np.minimum(stops, end) - np.maximum(starts, begin)
    return set(blocks["split"][shared > MARGIN + 1e-6])


def _feature_rows(dataset: SegmentDataset, rows: np.ndarray) -> np.ndarray:
    """[V, ...] which rows of all feature tables the segments see: equal rows, equal features."""
    samples = dataset.samples(torch.from_numpy(rows.astype(np.int64)))
    parts = [timeline[samples].cpu().numpy() for timeline in dataset.stimuli.timelines]
    return np.concatenate(parts, axis=1)


def _words_in(splits: Splits, split: str) -> pd.DataFrame:
    """Words that begin in the blocks of a split, in the recordings that have segments there."""
    parts = []
    for index in splits.datasets[split].table["recording"].unique():
        item = splits.prepared[index]
        words = item.events[item.events["kind"] == "word"]
        onsets = words["start"].to_numpy(float)
        blocks = item.blocks.sort_values("start")
        edges = blocks["start"].to_numpy(float)
        place = np.searchsorted(edges, onsets, side="right") - 1
        own = (place >= 0) & (blocks["split"].to_numpy()[place.clip(0)] == split)
        parts.append(words[own].drop_duplicates(["word", *_sentence_column(words)]))
    return pd.concat(parts, ignore_index=True)


def _sentence_column(words: pd.DataFrame) -> list[str]:
    return [column for column in ("word_sequence",) if column in words]


def _listed(names: list[str]) -> str:
    """The first few names, and how many there are beyond."""
    rest = len(names) - N_NAMED
    return "; ".join(names[:N_NAMED]) + (f"; and {rest} more" if rest > 0 else "")
