"""What may have been heard: stretches of sound as candidates, in the features of the model.

Enters: a sound file, a table of stretches of sounds, or a table of events. Leaves: a `Stimulus`,
events on one line of time and the candidates that begin on it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bm.core.messages import DataError, did_you_mean
from bm.events import create_blocks, cut_sounds_at_blocks, merge_blocks, validate_events
from bm.recordings.sound import sound_duration

PIECE = 10.0
"""Seconds of sound that a feature hears at once where no sentences are known: about a block."""


@dataclass(frozen=True)
class Stimulus:
    """Candidates, and the events that they are made of.

    Attributes
    ----------
    events : table of events (see `bm.events.table`), in seconds of a line of time of its own.
    candidates : one row each: ``begin`` on that line, in seconds, and what tells it apart.
    """

    events: pd.DataFrame
    candidates: pd.DataFrame

    @property
    def end(self) -> float:
        """Seconds, when the last event is over."""
        return float((self.events["start"] + self.events["duration"]).max())


def from_sound(path: str | Path, duration: float, step: float = 0.5) -> Stimulus:
    """Every stretch of a sound, one each `step` seconds.

    Parameters
    ----------
    path : wav, flac, ogg or mp3.
    duration : seconds of a candidate; a shorter sound is one candidate, with silence after it.
    step : seconds from one to the next.
    """
    path = Path(path).expanduser()
    length = sound_duration(path)
    starts = np.arange(0, length, PIECE)
    events = pd.DataFrame(
        {
            "kind": "sound",
            "start": starts,
            "duration": np.minimum(PIECE, length - starts),
            "filepath": str(path),
            "offset": starts,
        }
    )
    begins = step * np.arange(max(0, int((length - duration) / step + 1e-6)) + 1)
    return Stimulus(events, pd.DataFrame({"begin": begins, "sound": path.name, "start": begins}))


def from_table(path: str | Path, duration: float) -> Stimulus:
    """Candidates from a table of sounds, each judged by itself.

    Parameters
    ----------
    path : csv, or tsv: column ``sound``, a file (relative to the table), if needed ``start``, from
        where in seconds; further columns are labels.
    duration : seconds of a candidate; a shorter sound is followed by silence.

    Raises
    ------
    DataError : the table or a sound is missing, or ends before a candidate begins.
    """
    path = Path(path).expanduser()
    table = read_table(path)
    if "sound" not in table or not len(table):
        known = did_you_mean("sound", table.columns)
        raise DataError(f"{path} needs a column 'sound' and at least one row. {known}")
    files = [path.parent / str(sound) for sound in table["sound"]]
    starts = table["start"].to_numpy(float) if "start" in table else np.zeros(len(table))
    lengths = np.array([sound_duration(file) for file in files]) - starts
    for row in np.flatnonzero((lengths <= 0) | (starts < 0)):
        raise DataError(f"{path}, row {row + 1}: {files[row]} has no second {starts[row]:g}.")
    begins = (duration + 1.0) * np.arange(len(table))  # apart, so that none hears the next
    events = pd.DataFrame(
        {
            "kind": "sound",
            "start": begins,
            "duration": np.minimum(lengths, duration),
            "filepath": [str(file) for file in files],
            "offset": starts,
        }
    )
    return Stimulus(events, table.assign(start=starts, begin=begins))


def read_table(path: Path) -> pd.DataFrame:
    """Table of a csv file, or of a tsv file.

    Raises
    ------
    DataError : it is missing, or no table.
    """
    try:
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", na_values=["n/a"])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read as a table: {error}") from error
    if "filepath" in table:
        known = table["filepath"].notna()
        files = [str(path.parent / str(file)) for file in table["filepath"][known]]
        table["filepath"] = table["filepath"].astype(object)
        table.loc[known, "filepath"] = files
    return table


def from_events(
    events: pd.DataFrame, duration: float, step: float = 0.5, min_block_duration: float = 6.0
) -> Stimulus:
    """Every stretch of a table of events, for features that need words or phonemes.

    Parameters
    ----------
    events : see `bm.events.table`; of a recording, or of a stimulus alone.
    duration, step : as in `from_sound`.
    min_block_duration : sounds are cut at sentences, as in training, which last at least so long.
    """
    events = validate_events(events, np.inf, "events")
    if "word_index" in events and (events["word_index"] == 0).any():
        events = cut_sounds_at_blocks(
            events, merge_blocks(create_blocks(events), min_block_duration)
        )
    begin, end = events["start"].min(), (events["start"] + events["duration"]).max()
    begins = begin + step * np.arange(max(0, int((end - begin - duration) / step + 1e-6)) + 1)
    candidates = pd.DataFrame({"begin": begins, "start": begins})
    words = events[events["kind"] == "word"]
    if len(words):
        spoken = [
            " ".join(words["word"][words["start"].between(one, one + duration)].astype(str))
            for one in begins
        ]
        candidates = candidates.assign(words=spoken)
    return Stimulus(events, candidates)
