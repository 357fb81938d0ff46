"""What accuracy chance alone would give: a permutation null of a retrieval.

Enters: a retrieval. Leaves: accuracies of the same estimates, had other segments been heard.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from bm.evaluation.retrieval import N_BEST, Retrieval
from bm.evaluation.statistics import p_of_null

N_PERMUTATIONS = 1000


def permutation_null(
    retrieval: Retrieval,
    k: int,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> np.ndarray:
    """[n] top-k accuracies, each with the truths of all segments dealt out anew.

    The stimuli change their names, the same ones for everybody: sentences are put in a random
    order, the row of candidates is turned by a random number of places, and each candidate stands
    for the one that came to its place. So neighbours stay neighbours, and listeners of one sentence
    still share whatever its segments are taken for: errors that they have in common, which make a
    decoder right for all of them or for none, are as common in the null. Shuffling segments one by
    one would call such luck significant.

    Parameters
    ----------
    retrieval : outcome for each segment.
    k : of the accuracy, at most `bm.evaluation.retrieval.N_BEST`.
    n_permutations, seed : how many, and of what.
    groups : V names, such as those of studies: candidates only stand for others of their group,
        since to know the study isn't to know what was said. None: all are one group.

    Raises
    ------
    ValueError : more than the best `N_BEST` are asked for.
    """
    if k > N_BEST:
        raise ValueError(f"k={k}, but only the {N_BEST} best candidates of each segment are kept.")
    truth = retrieval.table["candidate"].to_numpy(np.int64)
    best = np.stack(retrieval.table["best"].to_list())[:, :k]  # [N, k]
    generator = np.random.default_rng(seed)
    rows = _rows(retrieval.candidates, groups)
    stand_in = np.arange(retrieval.n_candidates)
    null = np.empty(n_permutations)
    for number in range(n_permutations):
        for blocks in rows:
            dealt = np.concatenate([blocks[index] for index in generator.permutation(len(blocks))])
            turned = np.roll(dealt, generator.integers(len(dealt)))
            stand_in[np.concatenate(blocks)] = turned
        null[number] = (best == stand_in[truth][:, None]).any(axis=1).mean()
    return null


def permutation_p(
    retrieval: Retrieval,
    k: int,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> float:
    """Share of the null that is at least the accuracy; never below 1 / (n + 1)."""
    null = permutation_null(retrieval, k, n_permutations, seed, groups)
    return p_of_null(retrieval.accuracy(k), null)


def _rows(candidates: pd.DataFrame, groups: Sequence[str] | None) -> list[list[np.ndarray]]:
    """For each group, its sentences: candidates of each, in the order in which they come."""
    n = len(candidates)
    own = pd.Series([f"#{index}" for index in range(n)])  # without a sentence: a block of its own
    sentence = candidates.get("word_sequence", pd.Series(None, range(n), dtype=object))
    labels = sentence.reset_index(drop=True).astype(object).where(sentence.notna().to_numpy(), own)
    table = pd.DataFrame({"group": "" if groups is None else list(groups), "sentence": labels})
    return [list(_blocks(rows)) for _, rows in table.groupby("group", sort=False)]


def _blocks(rows: pd.DataFrame) -> Iterator[np.ndarray]:
    for _, own in rows.groupby("sentence", sort=False):
        yield own.index.to_numpy(np.int64)
