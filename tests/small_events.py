"""Small tables of words and phonemes, and what a feature makes of them sample by sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bm.core.cache import Cache
from bm.features import Feature, build_table

RATE = 120.0


def tell(*sentences: str, language: str = "en", **columns: Any) -> pd.DataFrame:
    """Words of sentences, one every half second, each 0.4 s long; written without punctuation."""
    rows = [
        {"word": word.strip('.,;:!?"“”'), "word_index": index, "word_sequence": sentence}
        for sentence in sentences
        for index, word in enumerate(sentence.split())
    ]
    events = pd.DataFrame(rows).assign(kind="word", duration=0.4, language=language, **columns)
    return events.assign(start=1.0 + 0.5 * np.arange(len(events)))


def say(labels: Sequence[str], language: str = "en") -> pd.DataFrame:
    """Phonemes, one every 0.1 s, each 0.08 s long."""
    starts = 1.0 + 0.1 * np.arange(len(labels))
    events = pd.DataFrame({"phoneme": list(labels), "start": starts})
    return events.assign(kind="phoneme", duration=0.08, language=language)


def seen(feature: Feature, events: pd.DataFrame, cache: Cache, seconds: float = 5.0) -> np.ndarray:
    """[T, F] what each sample of a recording of these events sees."""
    table = build_table(feature, [events], [int(seconds * RATE)], RATE, cache)
    return table.rows[table.timelines[0]]
