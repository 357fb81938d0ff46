"""MATLAB structures of the FieldTrip toolbox: continuous data, and tables of trials.

Enters: a `.mat` file. Leaves: an MNE raw without sensor positions, or a DataFrame.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd

from bm.core.messages import DataError, did_you_mean
from bm.studies.formats.files import as_list, read_mat

MICROVOLT = 1e-6
COLUMNS = ("begin", "end", "offset")
"""What FieldTrip itself keeps of each trial, in samples; a study's own columns follow."""


def read_data(path: Path, variable: str, sample_rate: float) -> "mne.io.BaseRaw":
    """Read a structure of one trial in microvolts; every channel is of type EEG.

    Raises
    ------
    DataError : the file is broken, or is not one continuous recording at `sample_rate`.
    """
    struct = _struct(path, variable, ("label", "trial", "fsample"))
    names = as_list(struct["label"])
    data = np.asarray(struct["trial"])
    if data.dtype == object or data.ndim != 2:
        raise DataError(f"{path}: expected one trial of [channels, samples], found {data.shape}.")
    if len(names) != len(data):
        raise DataError(
            f"{path}: {len(names)} channel names, but {len(data)} channels. Is the file complete, "
            "and as published?"
        )
    if float(struct["fsample"]) != sample_rate:
        raise DataError(
            f"{path}: {struct['fsample']} Hz, but event times count samples at {sample_rate:g} Hz. "
            "Use the file as published, not resampled."
        )
    if "sampleinfo" in struct and np.ravel(struct["sampleinfo"])[0] != 1:
        raise DataError(
            f"{path} begins at sample {np.ravel(struct['sampleinfo'])[0]} of its recording, but "
            "event times count from the first. Use the file as published, not cut."
        )
    info = mne.create_info(names, sample_rate, "eeg")
    return mne.io.RawArray(data * MICROVOLT, info, verbose="error")


def read_trials(path: Path, variable: str, columns: Sequence[str], remedy: str) -> pd.DataFrame:
    """Read a table of trials (`trl`), whose own columns are known by name (`varnames`).

    Returns
    -------
    DataFrame with ``begin`` and ``offset`` in samples, and the `columns` asked for.

    Raises
    ------
    DataError : the file is missing or broken, or lacks a column.
    """
    struct = _struct(path, variable, ("trl", "varnames"), remedy)
    table = np.asarray(struct["trl"])
    n_own = len(COLUMNS)
    if table.dtype.kind not in "iuf" or table.ndim != 2 or table.shape[1] < n_own or not len(table):
        raise DataError(f"{path}: {variable}.trl is no table of trials: {table.shape}.")
    # One release has more names than columns; the first ones fit.
    names = as_list(struct["varnames"])[: table.shape[1] - n_own]
    for column in columns:
        if column not in names:
            raise DataError(f"{path}: no column {column!r}. {did_you_mean(column, names)}")
    places = {column: n_own + names.index(column) for column in columns}
    places.update(begin=0, offset=2)
    trials = pd.DataFrame({name: table[:, place] for name, place in places.items()}, dtype=float)
    if not np.isfinite(trials.to_numpy()).all():
        row = int(np.flatnonzero(~np.isfinite(trials.to_numpy()).all(axis=1))[0])
        raise DataError(f"{path}: {variable}.trl, row {row + 1}: not a number. Download it again.")
    return trials


def read_bad_sensors(path: Path, variable: str) -> set[str]:
    """Names of the channels that the authors called bad, by impedance or by eye."""
    struct = _struct(path, variable, ("impedence", "rejections"))  # codespell:ignore
    by_impedance, by_eye = struct["impedence"], struct["rejections"]  # codespell:ignore
    lists = (by_impedance.get("bads", []), by_eye.get("badchans", []))
    return {name for names in lists for name in as_list(names)}


def _struct(
    path: Path, variable: str, fields: Sequence[str], remedy: str = ""
) -> Mapping[str, Any]:
    struct = read_mat(path, [variable], remedy)[variable]
    if not isinstance(struct, dict):
        raise DataError(f"{path}: {variable!r} is no structure. Is it the right file?")
    for field in fields:
        if field not in struct:
            hint = did_you_mean(field, struct)
            raise DataError(f"{path}: no field {variable}.{field}. {hint} Is it the right file?")
    return struct
