"""Words of the Alice study, and the split that each is in."""

import numpy as np

from bm.events import assign_splits, create_blocks, merge_blocks


def words_of(events):
    return events[events["kind"] == "word"]


def blocks_of(events):
    return assign_splits(merge_blocks(create_blocks(events)))


def split_of_words(events):
    """Split of each word, by its place in the story."""
    blocks = blocks_of(events)
    words = words_of(events)
    index = np.searchsorted(blocks["start"], words["start"] + 1e-6, side="right") - 1
    keys = zip(
        words["sequence_uid"],
        words["word"],
        words.groupby("sequence_uid").cumcount(ascending=False),
        strict=True,
    )
    return dict(zip(keys, blocks["split"].to_numpy()[index], strict=True))
