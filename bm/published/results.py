"""The figures to hold ours against: tables of the paper, saved outputs, counts, reproductions.

Enters: nothing but ``results.csv`` beside this module. Leaves: tables. Each line names its source;
none of them is a result of this code.

Reference: Défossez et al. 2023, doi:10.1038/s42256-023-00714-5.
"""

from pathlib import Path

import pandas as pd

from bm.core.messages import check_choice

RESULTS = Path(__file__).with_name("results.csv")
STUDIES = {
    "brennan2019": "Brennan",
    "broderick2019": "Broderick",
    "gwilliams2022": "Gwilliams",
    "audio_mous": "Schoffelen",
}
"""Selections of the paper's four datasets, in its order, and what it calls them."""

SIGNATURES = {
    "brennan2019": "4395629c",
    "broderick2019": "557f5f8a",
    "gwilliams2022": "6e3bf7d7",
    "audio_mous": "34219380",
}
"""Of the published experiments: row "wav2vec 2.0" of ``nmi.main_table``, seed 2036."""


def published_results(table: str) -> pd.DataFrame:
    """Published figures.

    Parameters
    ----------
    table : "main" (Table 2, rows as in the grid ``nmi.main_table``), "ablation" (rows as in
        ``nmi.ablation_final``), "datasets" (what Table 1 counts), "counts" (of an experiment) or
        "reproduction" (by others, with the published code).

    Returns
    -------
    DataFrame with columns

    - ``row``, ``study`` (a selection), ``measure``;
    - ``value``: accuracies (``top1``, ``top10``) and their ``change`` in percent; ``deviation``
      over three seeds, where known;
    - ``source``: where the figure stands.
    """
    results = pd.read_csv(RESULTS, keep_default_na=False, na_values={"deviation": [""]})
    check_choice("table", table, list(dict.fromkeys(results["table"])))
    return results[results["table"] == table].drop(columns="table").reset_index(drop=True)
