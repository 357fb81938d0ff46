"""Rows of words from pretrained models: one model for each language, defaults for unknown words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from bm.core.messages import DataError
from bm.features.words import log_missing

Model = TypeVar("Model")


def rows_by_model(
    feature: str, models: Sequence[Model], rows: Callable[[Model, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Rows [n_events, F], put together from those of several models.

    Parameters
    ----------
    feature : for messages.
    models : what names the model of each event.
    rows : given a model and the indices [n] of its events, their rows [n, F].

    Raises
    ------
    DataError : the models have vectors of different lengths.
    """
    parts = {}
    for model in dict.fromkeys(models):
        chosen = np.flatnonzero([other == model for other in models])
        parts[model] = chosen, rows(model, chosen)
    widths = {str(model): part.shape[1] for model, (_, part) in parts.items()}
    if len(set(widths.values())) != 1:
        raise DataError(
            f"{feature}: the languages' models have vectors of different lengths, {widths}. Choose "
            f"one model for all: dset.features_params.{feature}.model=..."
        )
    values = np.empty((len(models), next(iter(widths.values()))), dtype=np.float32)
    for chosen, part in parts.values():
        values[chosen] = part
    return values


def fill_missing(
    feature: str,
    words: "pd.Series[str]",
    keys: Sequence[Any],
    vectors: Mapping[Any, np.ndarray | None],
) -> np.ndarray:
    """Vectors [n_events, F] of words; those without get the mean of the others, and are logged.

    Parameters
    ----------
    feature : for messages.
    words : text of each word.
    keys : what names each word in `vectors`.
    vectors : [F] each; None for those that have none.

    Raises
    ------
    DataError : no word has one.
    """
    known = [vector for vector in vectors.values() if vector is not None]
    if not known:
        raise DataError(
            f"{feature}: the model knows none of the {words.nunique()} different words, such as "
            f"{words.iloc[0]!r}. Is it a model of their language?"
        )
    default = np.mean(known, axis=0)
    found = [vectors[key] for key in keys]
    missing = [vector is None for vector in found]
    log_missing(feature, "without a vector get the mean of the others", words[missing])
    return np.stack([default if vector is None else vector for vector in found]).astype(np.float32)
