"""Splits made by hand, for tests of what comes after them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from bm.evaluation import SegmentFeatures
from bm.recordings import Signal
from bm.recordings.sensors import Sensors
from bm.segments import SegmentBatch, SegmentDataset, SignalStore
from bm.segments.gather import Stimuli

N_TIMES, N_FEATURES, GAP = 4, 3, 6
Model = Callable[[SegmentBatch], SegmentFeatures]


def make_dataset(words: list[list[tuple[str, int, str]]], seed: int = 0) -> SegmentDataset:
    """Segments of recordings in which words are heard.

    Parameters
    ----------
    words : per recording, (sentence, word index, word) of each segment. The same sentence and index
        sound the same in every recording.
    """
    rng = np.random.default_rng(seed)
    distinct = sorted(
        {(sentence, index) for recording in words for sentence, index, _ in recording}
    )
    rows = rng.normal(size=(1 + N_TIMES * len(distinct), N_FEATURES)).astype(np.float32)
    tables, timelines, signals = [], [], []
    for number, recording in enumerate(words):
        timeline = np.zeros(GAP * len(recording), np.int32)
        for place, (sentence, index, _) in enumerate(recording):
            first = 1 + N_TIMES * distinct.index((sentence, index))
            timeline[GAP * place : GAP * place + N_TIMES] = first + np.arange(N_TIMES)
        timelines.append(timeline)
        data = rng.normal(size=(len(timeline), 2)).astype(np.float32)
        sensors = Sensors(["a", "b"], np.zeros((2, 2), np.float32), np.zeros((2, 3)))
        signals.append(Signal(data, 2.0, sensors))
        table = pd.DataFrame(recording, columns=["word_sequence", "word_index", "word"])
        first = GAP * np.arange(len(table))
        tables.append(
            table.assign(
                first=first, time=first / 2.0, recording=number, subject=number, layout=0, event=-1
            )
        )
    flat = torch.from_numpy(np.concatenate(timelines))
    stimuli = Stimuli([], [torch.from_numpy(rows)], [flat], torch.ones(len(flat), dtype=torch.bool))
    return SegmentDataset(
        pd.concat(tables, ignore_index=True), SignalStore(signals, "host"), stimuli, N_TIMES, 0
    )


def noisy(strength: float, seed: int = 0) -> Model:
    """Estimates that are the target and noise; each row of the table always gets the same noise."""

    def predict(batch: SegmentBatch) -> SegmentFeatures:
        noise = [
            torch.randn(
                batch.features.shape[1:], generator=torch.Generator().manual_seed(seed + row)
            )
            for row in batch.row.tolist()
        ]
        estimate = batch.features + strength * torch.stack(noise)
        return SegmentFeatures(estimate, batch.row)

    return predict


def perfect(batch: SegmentBatch) -> SegmentFeatures:
    """Estimates equal to the targets."""
    return SegmentFeatures(batch.features, batch.row)
