"""What the decoder knows: which features of a word tell how probable the decoder finds the truth.

Enters: a retrieval, and features of its candidates. Leaves: for each feature and subject, how well
a linear model predicts the decoder's probability of the true segment [1]_, and its statistics.

What is predicted well is what makes segments easy: if word embeddings predict the probability and
phonemes don't, then meaning, or what goes with it, decides whether the decoder succeeds. Nothing
follows about causes: features of words go together (frequent words are short).

References
----------
.. [1] Défossez et al. 2023, doi:10.1038/s42256-023-00714-5
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from bm.core.messages import DataError
from bm.evaluation.retrieval import Retrieval
from bm.evaluation.statistics import compare, holm, interval
from bm.features.phonemes import UNKNOWN, phoneme_class

TOGETHER = "all together"
N_FOLDS = 5
MIN_FOLDS = 3
"""So that two parts remain to choose the penalty on."""
N_INNER = 3
PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
"""Of the ridge regression, for standardised features; chosen within each training part."""


def knowledge(
    retrieval: Retrieval,
    features: Mapping[str, np.ndarray],
    subjects: Sequence[str],
    n_folds: int = N_FOLDS,
) -> pd.DataFrame:
    """Predict the probability of the true segment from each feature, for each subject.

    Ridge regression; sentences are divided among the folds, and so are those on which the penalty
    is chosen, since the segments of a sentence overlap.

    Parameters
    ----------
    retrieval : outcome for each segment, with sentences.
    features : [V, D] of all candidates, by name. If there are several, they are also taken all
        together.
    subjects : names by index.
    n_folds : of the cross-validation; fewer if there are fewer sentences.

    Returns
    -------
    DataFrame with columns ``feature``, ``subject``, ``r`` (Pearson's, of predicted and actual
    probability on held-out sentences, mean over folds; 0 where either never changes) and
    ``n_segments``.

    Raises
    ------
    DataError : there are fewer than three sentences, or their names aren't known.
    """
    table = retrieval.table
    if "word_sequence" not in table or table["word_sequence"].isna().any():
        raise DataError(
            "Not all segments have a sentence (word_sequence), so held-out segments could overlap "
            "those that were fitted: no analysis of what the decoder knows."
        )
    chosen = dict(features)
    if len(chosen) > 1:
        chosen[TOGETHER] = np.concatenate(list(chosen.values()), axis=1)
    candidate = table["candidate"].to_numpy(np.int64)
    rows = []
    for subject, own in table.groupby("subject"):
        index = own.index.to_numpy()
        probability = own["probability"].to_numpy(float)
        sentences = own["word_sequence"].astype(str).to_numpy(str)
        for name, values in chosen.items():
            r = predict_held_out(values[candidate[index]], probability, sentences, n_folds)
            rows.append(
                {
                    "feature": name,
                    "subject": subjects[int(str(subject))],
                    "r": r,
                    "n_segments": len(own),
                }
            )
    return pd.DataFrame(rows)


def predict_held_out(
    values: np.ndarray, target: np.ndarray, groups: np.ndarray, n_folds: int = N_FOLDS
) -> float:
    """Correlation of a ridge regression's predictions with the target, mean over folds.

    Parameters
    ----------
    values, target : [N, D] and [N].
    groups : [N] what must not be in two parts, such as sentences.
    n_folds : at most.

    Raises
    ------
    DataError : fewer than three groups.
    ValueError : fewer than three folds.
    ImportError : scikit-learn isn't installed.
    """
    sklearn = _sklearn()
    n_groups = len(np.unique(groups))
    if n_groups < MIN_FOLDS:
        raise DataError(
            f"{n_groups} sentence(s) are too few to hold some out: {MIN_FOLDS} are needed."
        )
    check_folds(n_folds)
    correlations = []
    outer = sklearn.GroupKFold(min(n_folds, n_groups))
    for train, test in outer.split(values, target, groups):
        n_inner = min(N_INNER, len(np.unique(groups[train])))
        inner = sklearn.GroupKFold(n_inner).split(values[train], target[train], groups[train])
        model = sklearn.make_pipeline(
            sklearn.StandardScaler(), sklearn.RidgeCV(alphas=PENALTIES, cv=list(inner))
        )
        predicted = model.fit(values[train], target[train]).predict(values[test])
        correlations.append(_correlation(predicted, target[test]))
    return float(np.mean(correlations))


def check_folds(n_folds: int) -> None:
    """Raise a ValueError unless some parts remain for fitting and for choosing the penalty."""
    if n_folds < MIN_FOLDS:
        raise ValueError(f"n_folds={n_folds} must be {MIN_FOLDS} or more.")


def summarise_knowledge(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over subjects of each feature, with its interval and a test against 0.

    Returns
    -------
    DataFrame with columns ``feature``, ``r``, ``low`` and ``high`` (95 % over subjects; NaN for
    fewer than three), ``p`` (two-sided Wilcoxon test), ``p_holm`` (corrected for all features),
    ``p_floor`` (the smallest that so many subjects can give) and ``n_subjects``.
    """
    rows = []
    for feature, own in table.groupby("feature", sort=False):
        of_subject = dict(zip(own["subject"], own["r"], strict=True))
        test = compare(of_subject, dict.fromkeys(of_subject, 0.0))
        found = interval(own["r"].to_numpy(float), own["subject"].to_numpy(str))
        rows.append(
            {
                "feature": feature,
                "r": test.difference,
                "low": np.nan if found is None else found.low,
                "high": np.nan if found is None else found.high,
                "p": test.p,
                "p_floor": test.p_floor,
                "n_subjects": test.n_subjects,
            }
        )
    summary = pd.DataFrame(rows)
    summary.insert(5, "p_holm", holm(summary["p"].tolist()))
    return summary


def anchors(candidates: pd.DataFrame, events: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The word event at which each candidate is anchored, in the order of the candidates.

    Raises
    ------
    DataError : one isn't anchored at a word.
    """
    parts = [
        events[int(recording)].loc[[event]]
        for recording, event in zip(candidates["recording"], candidates["event"], strict=True)
    ]
    words = pd.concat(parts, ignore_index=True)
    if (words["kind"] != "word").any():
        raise DataError(
            "Test segments must be anchored at words (dset.test.condition=word) to ask which words "
            "the decoder knows."
        )
    return words


def phonemes_of_words(
    candidates: pd.DataFrame, words: pd.DataFrame, events: Sequence[pd.DataFrame]
) -> np.ndarray | None:
    """[V, D] how often each phoneme is in the word; None where a study doesn't tell phonemes."""
    counts = np.zeros((len(candidates), UNKNOWN + 1))
    languages = words.get("language", pd.Series("", index=words.index)).fillna("").astype(str)
    ends = words["start"] + words["duration"]
    places = zip(candidates["recording"], words["start"], ends, strict=True)
    for row, (recording, begin, end) in enumerate(places):
        within = _between(events[int(recording)], "phoneme", begin, end)
        if not len(within):
            return None
        for label in within["phoneme"].astype(str):
            counts[row, phoneme_class(label, languages[row])] += 1
    return counts


def mean_in_window(
    candidates: pd.DataFrame,
    events: Sequence[pd.DataFrame],
    vectors: Mapping[str, np.ndarray],
    tmin: float,
    tmax: float,
) -> np.ndarray:
    """[V, D] mean vector of the words that begin in each candidate's window: the phrase.

    Parameters
    ----------
    candidates, events : and the event table of each recording.
    vectors : [D] of each word, by its text.
    tmin, tmax : seconds from the anchor.
    """
    found = []
    for recording, time in zip(candidates["recording"], candidates["time"], strict=True):
        heard = _between(events[int(recording)], "word", time + tmin, time + tmax)
        found.append(np.mean([vectors[str(word)] for word in heard["word"]], axis=0))
    return np.stack(found)


def _between(events: pd.DataFrame, kind: str, begin: float, end: float) -> pd.DataFrame:
    """Events of a kind that begin between two moments, to a millisecond."""
    starts = events["start"]
    return events[(events["kind"] == kind) & (starts >= begin - 1e-3) & (starts < end - 1e-3)]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if np.ptp(first) < 1e-12 or np.ptp(second) < 1e-12:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _sklearn() -> Any:
    """What is needed of scikit-learn, imported late: it is optional.

    Raises
    ------
    ImportError : it isn't installed; the message says how to.
    """
    try:
        from sklearn.linear_model import RidgeCV
        from sklearn.model_selection import GroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError(
            "What the decoder knows is found by scikit-learn. Run: pip install bm[analysis]   "
            "(or: pip install scikit-learn)"
        ) from error
    return SimpleNamespace(
        RidgeCV=RidgeCV,
        GroupKFold=GroupKFold,
        make_pipeline=make_pipeline,
        StandardScaler=StandardScaler,
    )
