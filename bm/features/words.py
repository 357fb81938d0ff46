"""Features of the words that were heard."""

import numpy as np
import pandas as pd

from bm.core.hashing import text_id
from bm.features.base import EventFeature, register


@register
class WordHash(EventFeature):
    """A number that names the word, the same in every process and on every machine.

    Parameters
    ----------
    buckets : words share this many numbers, from 1 (0 where no word is heard); two words of a large
        vocabulary can meet in one. It serves to compare words cheaply, not as a target.
    """

    normalizable = False

    def __init__(self, buckets: int = 100_000):
        if not 2 <= buckets <= 1 << 24:
            raise ValueError(f"buckets={buckets} must lie between 2 and 2**24 (exact in float32).")
        self.buckets = int(buckets)
        self.cardinality = self.buckets

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] numbers of the words, regardless of case."""
        numbers = [1 + text_id(str(word).lower()) % (self.buckets - 1) for word in events["word"]]
        return np.array(numbers, dtype=np.float32)[:, None]
