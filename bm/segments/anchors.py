"""What the stimulus is at the anchors of segments, for analyses of what is decoded well.

Enters: a table of segments, and features of all recordings. Leaves: the table with more columns.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bm.features import FeatureTable

PREFIX = "feature."
"""Of the names of the columns."""


def add_anchor_values(
    table: pd.DataFrame, features: Sequence[FeatureTable], sample_rate: float
) -> pd.DataFrame:
    """Add the value of each feature at the first sample of each anchor.

    Parameters
    ----------
    table : segments, with ``recording`` and ``time`` of the anchor in seconds.
    features : laid along the recordings.
    sample_rate : Hz, of the brain signals.

    Returns
    -------
    The table with a column ``feature.NAME``, or ``feature.NAME.0`` and so on for a vector.
    """
    # As events are laid along a recording: the first sample at or after.
    samples = np.ceil(table["time"].to_numpy(float) * sample_rate - 1e-6).astype(int)
    columns = {}
    for feature in features:
        places = zip(table["recording"], samples, strict=True)
        rows = [
            feature.timelines[recording][min(sample, len(feature.timelines[recording]) - 1)]
            for recording, sample in places
        ]
        values = feature.rows[np.array(rows, dtype=int)]
        name = f"{PREFIX}{feature.feature.name}"
        if values.shape[1] == 1:
            columns[name] = values[:, 0]
        else:
            columns.update({f"{name}.{k}": values[:, k] for k in range(values.shape[1])})
    return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1)
