"""Words of the Alice study, and the split that each is in."""

import numpy as np

from bm.events import assign_splits, create_blocks, merge_blocks


def words_of(events):
    return events[events["kind"] == "word"]


def blocks_of(events, in_stimulus_time=False):
    stimuli = events if in_stimulus_time else None
    return assign_splits(merge_blocks(create_blocks(events), 6.0, stimuli))


def split_of_words(events, in_stimulus_time=False):
    """Split of each word that is in a block, by its place in the story."""
    blocks = blocks_of(events, in_stimulus_time)
    words = words_of(events)
    index = np.searchsorted(blocks["start"], words["start"] + 1e-6, side="right") - 1
    keys = zip(
        words["sequence_uid"],
        words["word"],
        words.groupby("sequence_uid").cumcount(ascending=False),
        strict=True,
    )
    splits = zip(keys, blocks["split"].to_numpy()[index], strict=True)
    return {key: split for place, (key, split) in zip(index, splits, strict=True) if place >= 0}
