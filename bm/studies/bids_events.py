"""From a BIDS `*_events.tsv` to the event table: which lines are sounds, words and phonemes.

Enters: the path of the table, what its columns are called, and where stimuli lie. Leaves: the
table of `bm.events.table`. Every fault is a `DataError` that names file, line and column.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from bm.core.messages import DataError, check_choice, did_you_mean
from bm.recordings.sound import END_TOLERANCE, sound_duration
from bm.studies.formats.tsv import fail, numbers_of, read_tsv
from bm.studies.sentences import add_sentences

logger = logging.getLogger(__name__)

COLUMNS: dict[str, tuple[str, ...]] = {
    "onset": ("onset",),
    "duration": ("duration",),
    "kind": ("trial_type", "kind"),
    "sound": ("stim_file", "sound_file", "sound"),
    "sound_offset": ("sound_offset",),
    "word": ("word",),
    "phoneme": ("phoneme",),
    "sentence": ("sentence", "sentence_id", "sequence_id"),
    "word_index": ("word_index",),
    "condition": ("condition",),
}
"""What a column can mean, and the names it is looked for under unless `columns` says otherwise."""

KINDS = ("sound", "word", "phoneme")
SOUND_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
MAX_GUESSED_DURATION = 0.5
"""Seconds that a word or phoneme without a duration lasts, unless the next one comes earlier."""


@dataclass(frozen=True)
class EventReader:
    """Reads the `*_events.tsv` files of one dataset.

    Attributes
    ----------
    root : root of the dataset.
    stimuli : folder of the sound files.
    columns : name of the column for each meaning in `COLUMNS`; None: there is none.
    language : of the words, two letters.
    """

    root: Path
    stimuli: Path
    columns: Mapping[str, str | None] = field(default_factory=dict)
    language: str = "en"

    def __post_init__(self) -> None:
        for meaning in self.columns:
            check_choice("columns", meaning, COLUMNS)

    def read(self, path: Path) -> pd.DataFrame:
        """Event table of one file.

        Raises
        ------
        DataError : see the module.
        """
        table = read_tsv(path)
        names = self._names(table, path)
        table = _in_time_order(_without_repeats(table, path), names["onset"], path)
        times = _times(table, names, path)
        lines = {kind: _lines_of(kind, table, names, path) for kind in KINDS}
        if not any(of_kind.any() for of_kind in lines.values()):
            raise DataError(_nothing_found(path, table, names))
        counts = ", ".join(f"{of_kind.sum()} {kind}s" for kind, of_kind in lines.items())
        n_others = (~(lines["sound"] | lines["word"] | lines["phoneme"])).sum()
        logger.info("%s: %s; %d other line(s) left out.", path.name, counts, n_others)

        sounds = self._sounds(table[lines["sound"]], times[lines["sound"]], names, path)
        words = _labelled("word", table[lines["word"]], times[lines["word"]], names)
        phonemes = _labelled("phoneme", table[lines["phoneme"]], times[lines["phoneme"]], names)
        words = add_sentences(
            words,
            path,
            _word_index(table[lines["word"]], names, path),
            table[names["sentence"]] if "sentence" in names else None,
            sounds["start"],
        )
        parts = [part for part in (sounds, phonemes, words) if len(part)]
        events = pd.concat(parts).sort_values("start", kind="stable")
        return self._finish(events, table, names)

    def find_sound(self, cell: str) -> Path:
        """Sound file that a cell names, relative to `stimuli` or to the root of the dataset.

        Raises
        ------
        DataError : there is none.
        """
        name = cell.replace("\\", "/")
        places = [self.stimuli / name, self.root / name]
        for place in places:
            if os.path.lexists(place):  # also False for what can't be a name
                return place
        known = [found.name for found in self.stimuli.rglob("*") if _is_sound(found.name)]
        asked = Path(name).name
        asked = next((other for other in known if other.lower() == asked.lower()), asked)
        hint = f". {did_you_mean(asked, known)}" if 0 < len(known) < 200 else "."
        raise DataError(f"There is no sound file {places[0]} or {places[1]}{hint}")

    def _names(self, table: pd.DataFrame, path: Path) -> dict[str, str]:
        """Name of the column for each meaning that this table has."""
        names = {}
        for meaning, usual in COLUMNS.items():
            wanted = self.columns.get(meaning)
            if wanted is not None and wanted not in table:
                raise DataError(
                    f"{path}: no column {wanted!r} (columns.{meaning}). "
                    f"{did_you_mean(wanted, table.columns)}"
                )
            candidates = [wanted] if meaning in self.columns else usual
            found = [name for name in candidates if name is not None and name in table]
            if found:
                names[meaning] = found[0]
        if "onset" not in names:
            raise DataError(
                f"{path}: no column 'onset'; columns.onset can name another one. "
                f"{did_you_mean('onset', table.columns)}"
            )
        return names

    def _sounds(
        self, rows: pd.DataFrame, times: pd.DataFrame, names: Mapping[str, str], path: Path
    ) -> pd.DataFrame:
        """Sound events; a duration that isn't given is that of the file."""
        events = times.assign(kind="sound", offset=0.0)
        if not len(rows):
            return events
        column = names["sound"]
        if "sound_offset" in names:
            offsets = numbers_of(rows, names["sound_offset"], path, minimum=0)
            events["offset"] = offsets.fillna(0.0)
        files, lengths = [], []
        for line, cell in zip(rows.index, rows[column], strict=True):
            try:
                files.append(self.find_sound(cell))
                lengths.append(sound_duration(files[-1]))
            except DataError as error:
                fail(path, pd.Index([line]), column, str(error).rstrip("."))
        rest = np.array(lengths) - events["offset"]
        too_long = (events["duration"] > rest + END_TOLERANCE) | (rest <= 0)
        if too_long.any():
            line = events.index[too_long][0]
            end = events["offset"][line] + np.nan_to_num(events["duration"][line])
            length = rest[line] + events["offset"][line]
            fault = f"{rows[column][line]} lasts {length:.3f} s, but is played to {end:.3f} s"
            fail(path, events.index[too_long], names.get("duration", column), fault)
        events["duration"] = events["duration"].fillna(rest)
        events["filepath"] = [str(file) for file in files]
        _check_not_playing(events, path, column)
        return events

    def _finish(
        self, events: pd.DataFrame, table: pd.DataFrame, names: Mapping[str, str]
    ) -> pd.DataFrame:
        """Add what all events have, and the columns of the file that mean nothing to bm."""
        source = table.loc[events.index].reset_index(drop=True)  # a line can make two events
        events = events.reset_index(drop=True)
        if "condition" in names:
            events["condition"] = source[names["condition"]].where(events["kind"] != "sound", None)
        elif (events["kind"] == "word").any():
            events["condition"] = pd.Series("sentence", index=events.index, dtype=object).where(
                events["kind"] == "word", None
            )
        events["language"], events["modality"] = self.language, "audio"
        for name in table:
            if name not in events and name not in names.values():
                events[name] = source[name]
        return events


def _without_repeats(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    repeated = table.duplicated()
    if repeated.any():
        lines = list(table.index[repeated])
        logger.warning(
            "%s: %d repeated line(s) dropped (first: line %d).", path, len(lines), lines[0]
        )
    return table[~repeated]


def _in_time_order(table: pd.DataFrame, column: str, path: Path) -> pd.DataFrame:
    onset = numbers_of(table, column, path, required=True)
    if not onset.is_monotonic_increasing:
        logger.warning("%s: lines were not in time order; sorted.", path)
    return table.loc[onset.sort_values(kind="stable").index]


def _times(table: pd.DataFrame, names: Mapping[str, str], path: Path) -> pd.DataFrame:
    """Start and duration of each line in seconds; a duration of 0 counts as not given."""
    duration = pd.Series(np.nan, index=table.index)
    if "duration" in names:
        duration = numbers_of(table, names["duration"], path, minimum=0)
    start = numbers_of(table, names["onset"], path)
    return pd.DataFrame({"start": start, "duration": duration.where(duration > 0)})


def _lines_of(
    kind: str, table: pd.DataFrame, names: Mapping[str, str], path: Path
) -> "pd.Series[bool]":
    """Mark the lines that are events of a kind.

    Where the column of kinds says "sound", "word" or "phoneme", that decides. In other lines each
    cell with a sound file, a word or a phoneme makes an event; a word beside a phoneme only says
    which word the phoneme is part of.
    """
    filled = pd.Series(False, index=table.index)
    if kind in names:
        filled = table[names[kind]].map(_is_sound if kind == "sound" else pd.notna).astype(bool)
    said = pd.Series("", index=table.index)
    if "kind" in names:
        said = table[names["kind"]].str.lower().fillna("")
    lacking = (said == kind) & ~filled
    if lacking.any():
        _fail_lacking(kind, table[lacking], names, path)
    unsaid = filled & ~said.isin(KINDS)
    if kind == "word" and "phoneme" in names:
        unsaid &= table[names["phoneme"]].isna()
    return (said == kind) | unsaid


def _fail_lacking(kind: str, rows: pd.DataFrame, names: Mapping[str, str], path: Path) -> NoReturn:
    if kind in names:
        given = rows[names[kind]].iloc[0]
        fault = f"this line announces a {kind}, but the cell holds {given or 'nothing'}"
        fail(path, rows.index, names[kind], fault)
    raise DataError(
        f"{path}, line {rows.index[0]}: a {kind} is announced, but no column holds it. Name the "
        f"column with columns.{kind}. {did_you_mean(kind, rows.columns)}"
    )


def _is_sound(cell: object) -> bool:
    return isinstance(cell, str) and cell.lower().endswith(SOUND_EXTENSIONS)


def _check_not_playing(events: pd.DataFrame, path: Path, column: str) -> None:
    """A file that starts anew before it ended is probably only named in that line."""
    stops = events["start"] + events["duration"]
    last_stop = stops.groupby(events["filepath"]).transform(lambda each: each.cummax().shift())
    again = events["start"] < last_stop - END_TOLERANCE
    if again.any():
        line = events.index[again][0]
        fault = (
            f"{Path(events['filepath'][line]).name} is still playing. If this column tells what is "
            "heard rather than what begins, add a column that says sound or word in each line "
            "(columns.kind)"
        )
        fail(path, events.index[again], column, fault)


def _labelled(
    kind: str, rows: pd.DataFrame, times: pd.DataFrame, names: Mapping[str, str]
) -> pd.DataFrame:
    """Word or phoneme events; one without a duration lasts until the next begins."""
    until_next = times["start"].shift(-1) - times["start"]
    guess = until_next.where(until_next > 0).clip(upper=MAX_GUESSED_DURATION)
    events = times.assign(kind=kind, duration=times["duration"].fillna(guess))
    events["duration"] = events["duration"].fillna(MAX_GUESSED_DURATION)
    if len(rows):
        events[kind] = rows[names[kind]]
    return events


def _word_index(
    rows: pd.DataFrame, names: Mapping[str, str], path: Path
) -> "pd.Series[float] | None":
    if "word_index" not in names:
        return None
    return numbers_of(rows, names["word_index"], path, minimum=0, required=True)


def _nothing_found(path: Path, table: pd.DataFrame, names: Mapping[str, str]) -> str:
    looked = ", ".join(f"{meaning} in {name!r}" for meaning, name in names.items())
    return (
        f"{path}: no sound, word or phoneme in {len(table)} line(s). Looked for {looked}; the file "
        f"has {', '.join(table.columns)}. Name the right ones: columns.sound, columns.word, ..."
    )
