"""The probability of each word while a sentence goes by.

Enters: a test split, a decoder, and a sentence that somebody heard. Leaves: at each moment, how
probable the decoder finds each word of the sentence.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from bm.core.messages import DataError
from bm.evaluation.candidates import GATHERED_AT_ONCE, Candidates, FeaturesOf, Unique
from bm.evaluation.words import NO_WORD, word_ids
from bm.losses import Similarity
from bm.segments import SegmentDataset

STEP = 0.1
MARGIN = 0.5
"""Seconds before the first word, and after the last, that are looked at."""


@dataclass(frozen=True)
class WordCourse:
    """How probable the words of a sentence are as it goes by.

    Attributes
    ----------
    words : n words, in their order.
    onsets : [n] seconds since the onset of the first.
    times : [T] seconds; each is the anchor of a window, as an onset is.
    probabilities : [n, T] sums over all candidates that are anchored at the word.
    chances : [n] the same if all candidates were equally probable.
    """

    words: list[str]
    onsets: np.ndarray
    times: np.ndarray
    probabilities: np.ndarray
    chances: np.ndarray


@torch.no_grad()
def word_course(
    dataset: SegmentDataset,
    estimate: FeaturesOf,
    target: FeaturesOf,
    sample_rate: float,
    recording: int,
    sentence: str,
    step: float = STEP,
    similarity: Similarity | None = None,
    batch_size: int = GATHERED_AT_ONCE,
) -> WordCourse:
    """Slide the window of a decoder along a sentence.

    Only words that anchor a test segment are shown: at the edges of a block there is no room for
    a window. The window sees what follows its anchor (3 s in the published configuration), so a
    word can be known before its onset, and windows look at what lies before and after the sentence.

    Parameters
    ----------
    dataset : the test split.
    estimate, target, similarity : as in `bm.evaluation.retrieve`.
    sample_rate : Hz, of the brain signals.
    recording, sentence : index, and ``word_sequence``, of what was heard; the first time it was.
    step : seconds from window to window.
    batch_size : windows that the model is asked about, and scored, at once.

    Raises
    ------
    DataError : no segment of the recording is anchored in the sentence.
    """
    table = dataset.table
    known = word_ids(dataset)
    is_sentence = table.get("word_sequence", pd.Series(None, table.index, dtype=object)) == sentence
    own = (is_sentence & (table["recording"] == recording)).to_numpy() & (known != NO_WORD)
    if not own.any():
        raise DataError(f"No test segment of recording {recording} is anchored in {sentence!r}.")
    anchors = table[own].sort_values("first", kind="stable").drop_duplicates("word_index")
    start, stop = int(anchors["first"].iloc[0]), int(anchors["first"].iloc[-1])
    shown = _windows(dataset, int(anchors.index[0]), start, stop, sample_rate, step)
    unique = Unique.of(dataset)
    candidates = Candidates(dataset, unique.first, target, batch_size, similarity=similarity)
    scores = torch.full((len(shown), len(candidates)), torch.nan)  # stays, if the scaler rejects
    batches = map(shown.gather, torch.arange(len(shown)).split(batch_size))
    for found, row in candidates.scores(batches, estimate):
        scores[row.cpu()] = found.cpu()
    probability = scores.softmax(dim=1).numpy()
    word_of_candidate = known[unique.first[candidates.kept]]
    is_word = word_of_candidate[None] == known[anchors.index.to_numpy()][:, None]  # [n, V]
    return WordCourse(
        anchors["word"].astype(str).tolist(),
        (anchors["first"].to_numpy(np.int64) - start) / sample_rate,
        (shown.table["first"].to_numpy(np.int64) - start) / sample_rate,
        is_word.astype(np.float32) @ probability.T,
        is_word.mean(axis=1),
    )


def _windows(
    dataset: SegmentDataset, anchor: int, start: int, stop: int, sample_rate: float, step: float
) -> SegmentDataset:
    """Windows from a margin before the first to a margin after the last anchor."""
    margin = round(MARGIN * sample_rate)
    stride = round(step * sample_rate)
    if stride < 1:
        raise ValueError(f"step={step} s is less than a sample. Choose {1 / sample_rate:g} s.")
    recording = dataset.table["recording"][anchor]
    last = dataset.store.lengths[recording] - dataset.n_times
    first = np.arange(max(0, start - margin), min(last, stop + margin) + 1, stride)
    rows = dataset.table.loc[[anchor] * len(first)].reset_index(drop=True).assign(first=first)
    return SegmentDataset(rows, dataset.store, dataset.stimuli, dataset.n_times, dataset.n_baseline)
