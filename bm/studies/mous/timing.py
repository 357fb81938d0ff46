"""When the lines of a MOUS log happened, in seconds of the recording.

Enters: logs, the authors' `events.tsv` where a log is missing, and the recording. Leaves: one table
of lines with ``seconds``, in time order.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import mne
import numpy as np
import pandas as pd

from bm.core.messages import DataError
from bm.studies.formats.ctf import read_channel
from bm.studies.formats.presentation import STIMULI, read_log
from bm.studies.formats.tsv import numbers_of, read_tsv
from bm.studies.mous.codes import FIXATION, INSTRUCTION, read_codes, read_codes_as_published
from bm.studies.mous.triggers import Clock, Triggers, align, align_in_order, received

logger = logging.getLogger(__name__)

LINE = "UPPT001"
"""Channel of the triggers; the other ones hold responses, or other things still."""


def timed_by_triggers(
    logs: Sequence[Path], events_file: Path, signal: Path, raw: "mne.io.BaseRaw"
) -> pd.DataFrame:
    """Lines of all runs of the scenario that were recorded, by the triggers that came with them.

    Parameters
    ----------
    logs : of this person. A run that isn't in this recording is left out; so a log may serve two
        recordings, and a log of two runs one or two.
    events_file : read if there is no log, or none fits.
    signal, raw : the recording.

    Raises
    ------
    DataError : no log fits the triggers, or a file is broken.
    """
    sample_rate = raw.info["sfreq"]
    duration = raw.n_times / sample_rate
    triggers = received(read_channel(signal, LINE)[: raw.n_times], sample_rate)
    if not len(triggers):
        raise DataError(f"{signal}: channel {LINE} holds no trigger, so events can't be placed.")
    runs = [(f"{log}, line {run.index[0]}", run) for log in logs for run in read_log(log)]
    parts = _recorded(runs, triggers, duration)
    if not parts and events_file.exists():
        if logs:
            logger.warning("%s: no log fits its triggers; read from %s.", signal, events_file)
        parts = _recorded([(str(events_file), _read_events_file(events_file))], triggers, duration)
    if not parts:
        names = ", ".join(str(log) for log in logs) or str(events_file)
        raise DataError(
            f"{signal}: its {len(triggers)} triggers ({LINE}) don't fit {names}. Is that the log "
            "of this person and task, and is the recording complete?"
        )
    return pd.concat(parts).sort_values("seconds", kind="stable", ignore_index=True)


def timed_as_published(logs: Sequence[Path], raw: "mne.io.BaseRaw", source: str) -> pd.DataFrame:
    """Lines of the first run in the last log, by counting off contexts and fixation crosses.

    Triggers come from all stimulus channels alike. Times below 0 are taken for 0. What is later
    than the last trigger is left out.

    Raises
    ------
    DataError : there is no log, or log or recording has neither contexts nor crosses.
    """
    if not logs:
        raise DataError(f"{source}: faithful=True needs its log in sourcedata/meg_task.")
    rows = read_log(logs[-1])[0]
    codes = read_codes_as_published(rows)
    found = mne.find_events(raw, shortest_event=1, verbose="error")
    anchors = found[np.isin(found[:, 2], (INSTRUCTION, FIXATION))]
    is_fixation = (codes["what"] == "fixation").to_numpy()
    is_anchor = is_fixation | (codes["what"] == "context").to_numpy()
    if not len(anchors) or not is_anchor.any():
        raise DataError(
            f"{source}: {len(anchors)} triggers {INSTRUCTION} or {FIXATION}, and "
            f"{is_anchor.sum()} contexts or fixation crosses in {logs[-1]}: nothing to match."
        )
    sample_rate = raw.info["sfreq"]
    seconds = align_in_order(
        rows["time"].where(rows["time"] >= 0, 0.0).to_numpy(float),
        is_anchor,
        is_fixation,
        anchors[:, 0] / sample_rate,
        anchors[:, 2] == FIXATION,
    )
    table = codes.assign(seconds=seconds, duration=rows["duration"])
    table = table[(seconds >= 0) & (seconds <= found[-1, 0] / sample_rate)]
    if len(table) and table["what"].iloc[-1] == "sound":  # its onset was left out
        table = table.iloc[:-1]
    return table


def _recorded(
    runs: Sequence[tuple[str, pd.DataFrame]], triggers: Triggers, duration: float
) -> list[pd.DataFrame]:
    """Runs that are in the recording, most triggers first; each trigger serves one run."""
    tables = {name: _with_codes(rows, name) for name, rows in runs}
    parts = []
    while tables:
        clocks = {
            name: clock
            for name, table in tables.items()
            if (clock := align(_sent(table), triggers, duration)) is not None
        }
        if not clocks:
            break
        best = max(clocks, key=lambda name: len(clocks[name].log))
        table, clock = tables.pop(best), clocks[best]
        _report(best, clock)
        parts.append(table.assign(seconds=clock.seconds(table["time"].to_numpy(float))))
        triggers = triggers.keep(~np.isin(np.arange(len(triggers)), clock.used))
    for name in tables if parts else ():
        logger.info("%s: this run of the scenario isn't in the recording.", name)
    return parts


def _with_codes(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    table = read_codes(rows).assign(time=rows["time"], duration=rows["duration"])
    timeless = table["time"].isna() & table["what"].isin(["sound", "word"])
    if timeless.any():
        logger.warning("%s: %d stimuli without a time are left out.", name, timeless.sum())
    return table[table["time"].notna()]


def _sent(table: pd.DataFrame) -> Triggers:
    sent = table[table["trigger"] > 0]
    return Triggers(sent["time"].to_numpy(float), sent["trigger"].to_numpy(int))


def _report(name: str, clock: Clock) -> None:
    gaps = np.abs(clock.recording - clock.log - np.median(clock.recording - clock.log))
    logger.info(
        "%s: %d of the %d triggers that should be in the recording are; the clocks drift by %.0f "
        "ppm (%.0f ms in all).",
        name, len(clock.log), clock.n_expected, 1e6 * (clock.speed - 1), 1e3 * gaps.max(),
    )  # fmt: skip


def _read_events_file(path: Path) -> pd.DataFrame:
    """Lines of the log, as the authors copied them into `events.tsv`, among other lines."""
    table = read_tsv(path)
    for column in ("onset", "duration", "type", "value"):
        if column not in table:
            raise DataError(
                f"{path}: no column {column!r}, but {', '.join(table.columns)}. Is it the table of "
                "this collection?"
            )
    table = table[table["type"].isin(STIMULI)]
    return pd.DataFrame(
        {
            "type": table["type"],
            "code": table["value"].fillna(""),
            "time": numbers_of(table, "onset", path),
            "duration": numbers_of(table, "duration", path),
        }
    )
