"""The figures of an evaluation as tables: ``acc.csv`` and ``metadata.csv``."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from bm.core.cache import write_atomically
from bm.evaluation.retrieval import Retrieval
from bm.metrics import chance
from bm.segments.anchors import PREFIX

ACCURACY, METADATA = "acc.csv", "metadata.csv"
EVERYONE = "all"

LABELS = {"word": "word", "word_index": "word_index", "word_sequence": "sentence", "time": "time"}
"""Columns of the split's table that go to ``metadata.csv``, and what they are called there."""


def accuracy_table(
    retrieval: Retrieval, subjects: Sequence[str], ceiling: Mapping[int, float] | None = None
) -> pd.DataFrame:
    """Top-k segment accuracies, one row for each k: of all segments first, then of each subject.

    Parameters
    ----------
    retrieval : outcome for each segment.
    subjects : names of subjects by index.
    ceiling : top-k accuracy of the best possible decoder, where the study is simulated.

    Returns
    -------
    DataFrame with columns

    - ``subject``: "all", or a name;
    - ``k``, ``accuracy`` and ``chance``, the accuracy of guessing, shares between 0 and 1;
    - ``n_candidates``, ``n_samples`` (test segments), ``n_subjects``;
    - ``standard_error`` of the mean over subjects; empty for a single subject;
    - ``ceiling``; empty where unknown.
    """
    n_of = retrieval.n_by_subject()
    rows: list[dict[str, object]] = []
    for k in retrieval.ks:
        shared = {
            "k": k,
            "chance": chance(k, retrieval.n_candidates),
            "n_candidates": retrieval.n_candidates,
        }
        everyone = {
            "subject": EVERYONE,
            "accuracy": retrieval.accuracy(k),
            "n_samples": len(retrieval.table),
            "n_subjects": len(n_of),
            "standard_error": retrieval.standard_error(k),
            "ceiling": np.nan if ceiling is None else ceiling.get(k, np.nan),
        }
        rows.append({**shared, **everyone})
        for index, accuracy in retrieval.by_subject(k).items():
            one = {"accuracy": accuracy, "n_samples": n_of[index], "n_subjects": 1}
            rows.append({**shared, "subject": subjects[index], **one})
    columns = [
        "subject", "k", "accuracy", "chance", "n_candidates", "n_samples", "n_subjects",
        "standard_error", "ceiling",
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    is_one = table["subject"] != EVERYONE
    return table.iloc[np.argsort(is_one, kind="stable")].reset_index(drop=True)


def metadata_table(
    retrieval: Retrieval, subjects: Sequence[str], recordings: Sequence[str]
) -> pd.DataFrame:
    """What became of each test segment, in the order of the split.

    Parameters
    ----------
    retrieval : outcome for each segment.
    subjects, recordings : names by index.

    Returns
    -------
    DataFrame with columns ``subject``, ``recording``; ``word``, ``word_index``, ``sentence`` and
    ``time`` (seconds of the recording) of the anchor, where they are known; ``rank``, the number of
    candidates above the true one (0 is best; a tie counts half); ``probability`` of the true one;
    ``feature.NAME``, values at the anchor of what ``dset.extra_test_features`` asks for.
    """
    table = retrieval.table.sort_values("row", kind="stable", ignore_index=True)
    columns: dict[str, object] = {
        "subject": [subjects[index] for index in table["subject"]],
        "recording": [recordings[index] for index in table["recording"]],
    }
    columns.update({name: table[label] for label, name in LABELS.items() if label in table})
    columns.update(rank=table["rank"], probability=table["probability"])
    extra = [str(name) for name in table if str(name).startswith(PREFIX)]
    columns.update({name: table[name] for name in extra})
    found = pd.DataFrame(columns)
    for name in ("rank", "word_index"):
        if name in found and (found[name].dropna() % 1 == 0).all():
            found[name] = found[name].astype("Int64")
    return found


def write_tables(folder: Path, accuracies: pd.DataFrame, metadata: pd.DataFrame) -> None:
    """Write ``acc.csv`` and ``metadata.csv``."""
    for name, table in ((ACCURACY, accuracies), (METADATA, metadata)):
        write_atomically(folder / name, partial(table.to_csv, index=False))
