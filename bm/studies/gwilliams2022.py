"""MEG-MASC: English stories heard in the MEG (Gwilliams et al. 2022 in the paper's tables).

Enters: the dataset's BIDS tree, merged from its three parts. Leaves: `Recording`s, one for each
story and session. Its `events.tsv` hold a Python dictionary in each line or, where the dataset is
hosted anew, a column for each of its keys.
"""

import ast
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd

from bm.core.cache import Cache
from bm.core.hashing import file_fingerprint
from bm.core.messages import DataError, check_choice, did_you_mean
from bm.recordings import Recording
from bm.recordings.sound import END_TOLERANCE, sound_duration
from bm.studies.base import Study, register, where_from
from bm.studies.expected import Expected, Facts, compare, take_stock
from bm.studies.formats.kit import check_con
from bm.studies.formats.tsv import fail, numbers_of, read_tsv

logger = logging.getLogger(__name__)

SESSIONS = ("0", "1")
STORIES = {"0": "lw1", "1": "cable_spool_fort", "2": "easy_money", "3": "the_black_willow"}
"""Story of each task; in which order a person heard them stands in participants.tsv."""
ONE_SESSION = ("03", "12", "16", "20", "21")
KINDS = ("sound", "word", "phoneme")
LONGEST_NAME = 255
NEEDED = {
    "sound": ("sound",),
    "word": ("word", "sequence_id", "word_index", "condition"),
    "phoneme": ("phoneme", "sequence_id", "condition"),
}
COUNTS: dict[str, dict[str, Expected]] = {
    "0": {"sounds": 4, "words": 668, "phonemes": 2462},
    "1": {"sounds": 6, "words": 1503, "phonemes": 5113},
    "2": {"sounds": 8, "words": 2637, "phonemes": 8952},
    "3": {"sounds": 12, "words": 3753, "phonemes": 14234},
}
"""Events of each task, the same in all recordings."""
LABELS = ("word", "phoneme", "condition", "voice")
NUMBERS = ("sequence_id", "word_index", "speech_rate", "pronounced")
READER_VERSION = 1


@register
class Gwilliams2022(Study):
    """27 people hear four stories, twice: 196 recordings, 57 h of MEG.

    - Sensors: 208 axial gradiometers (KIT, New York University Abu Dhabi), 1000 Hz.
    - Stimuli: 30 sound files, 2 h a session, spoken by a computer; stretches of word lists and some
      pseudo-words in between. Five people came for the first session only.
    - Licence: CC0. No registration.
    - Data: https://osf.io/ag3kj, https://osf.io/h2tzn and https://osf.io/u5327, into one folder.
    - Gwilliams, Flick, Marantz, Pylkkänen, Poeppel and King 2023, Scientific Data 10:862,
      doi:10.1038/s41597-023-02752-5.

    Parameters
    ----------
    path : folder with `participants.tsv` and `sub-01` ..., or the one above, if it is `download`.
    subjects : labels to use ("01", or ["01", "02"]); all if not given.
    faithful : as published (Défossez et al. 2023): the language is called "english", which no text
        model knows, rather than "en". All else is as published anyway.
    """

    name = "gwilliams2022"
    facts = Facts(
        licence="CC0 1.0",
        doi="10.1038/s41597-023-02752-5",
        subjects=27,
        recordings=(192, 196),  # one session was not public at some time
        hours=(56.0, 57.5),
        counts={"sensors": 208},
    )

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        subjects: str | Sequence[str | int] | None = None,
        faithful: bool = False,
        cache: Cache,
    ):
        super().__init__(path, cache=cache)
        if self.path is None:
            raise ValueError(f"Study {self.name!r} needs the path of its data.")
        root = self.path
        self.root = root / "download" if (root / "download" / "sub-01").is_dir() else root
        self.subjects = subjects
        self.language = "english" if faithful else "en"
        self._reported: set[Path] = set()

    def recordings(self) -> Iterator[Recording]:
        """All recordings whose files are there, subject by subject."""
        found, n_absent = [], 0
        for subject in self._subjects():
            sessions = SESSIONS[:1] if subject in ONE_SESSION else SESSIONS
            for session, task in product(sessions, STORIES):
                recording = Gwilliams2022Recording(self, subject, session, task)
                if recording.signal_file.exists() and recording.events_file.exists():
                    found.append(recording)
                else:
                    n_absent += 1
        if not found:
            raise DataError(
                f"{self.root}: no recording of MEG-MASC, such as "
                "sub-01/ses-0/meg/sub-01_ses-0_task-0_meg.con with its *_events.tsv. "
                f"{where_from(self.name)}"
            )
        if n_absent:
            logger.warning("%s: %d recording(s) absent, %d used.", self.root, n_absent, len(found))
        people = {recording.subject_uid for recording in found}
        names = [recording.recording_uid for recording in found]
        self.tally = take_stock(
            str(self.root), self.facts, people, names, self.subjects is not None
        )
        yield from found

    def report_missing(self, files: Iterable[Path]) -> None:
        """Log sound files that are absent, each once."""
        missing = sorted(set(files) - self._reported)
        if missing:
            self._reported.update(missing)
            logger.warning(
                "%s and %d other sound file(s) are missing: each is taken to last until its last "
                "word ends, and has no features.",
                missing[0],
                len(missing) - 1,
            )

    def _subjects(self) -> list[str]:
        """Labels in the order of participants.tsv."""
        listing = self.root / "participants.tsv"
        if listing.exists():
            table = read_tsv(listing)
            if "participant_id" not in table:
                hint = did_you_mean("participant_id", table.columns)
                raise DataError(f"{listing}: no column 'participant_id'. {hint}")
            known = [str(name).removeprefix("sub-") for name in table["participant_id"]]
        else:
            known = sorted(folder.name.removeprefix("sub-") for folder in self.root.glob("sub-*"))
        if self.subjects is None:
            return known
        wanted = [self.subjects] if isinstance(self.subjects, str) else self.subjects
        # YAML reads 01 as a number
        labels = [
            f"{label:02d}" if isinstance(label, int) else label.removeprefix("sub-")
            for label in wanted
        ]
        for label in labels:
            check_choice("subject", label, known)
        return [label for label in known if label in labels]


class Gwilliams2022Recording(Recording):
    """One story, heard by one person in one session."""

    def __init__(self, study: Gwilliams2022, subject: str, session: str, task: str):
        super().__init__(
            study.name,
            subject,
            f"{subject}_session{session}_story{task}",
            study.cache,
            session=session,
        )
        folder = study.root / f"sub-{subject}" / f"ses-{session}" / "meg"
        stem = f"sub-{subject}_ses-{session}_task-{task}"
        self.signal_file = folder / f"{stem}_meg.con"
        self.events_file = folder / f"{stem}_events.tsv"
        self.task = task
        self._study = study

    def source_files(self) -> list[Path]:
        """The signal."""
        return [self.signal_file]

    def event_key(self) -> dict[str, Any]:
        """Events file, and sound files, whose lengths are durations."""
        sounds = sorted((self._study.root / "stimuli" / "audio").glob("*.wav"))
        return {
            "reader": READER_VERSION,
            "language": self._study.language,
            "root": str(self._study.root),
            "files": file_fingerprint([self.events_file]),
            "sounds": file_fingerprint(sound for sound in sounds if sound.exists()),
        }

    def load_raw(self) -> "mne.io.BaseRaw":
        """Signal with the channel names of the dataset's channels.tsv; electrodes are no data."""
        check_con(self.signal_file)
        raw = mne.io.read_raw_kit(self.signal_file, standardize_names=True, verbose="error")
        electrodes = mne.pick_types(raw.info, meg=False, eeg=True, exclude=[])
        kinds = {raw.ch_names[index]: "misc" for index in electrodes}
        raw.set_channel_types(kinds, on_unit_change="ignore", verbose="error")
        if self._study.tally.add(self.recording_uid, raw.n_times / raw.info["sfreq"]):
            found = {"sensors": len(mne.pick_types(raw.info, meg=True, ref_meg=False, exclude=[]))}
            cause = "the recording comes from another MEG, or some sensors were taken out"
            compare(str(self), self._study.facts.counts, found, cause)
        return raw

    def load_events(self) -> pd.DataFrame:
        """Sounds, words and phonemes.

        A sound lasts as long as its wav file. Where that is absent, it lasts until its last word
        ends: blocks and segments are the same then, but there is nothing to compute features from.
        """
        path = self.events_file
        table = _read_table(path)
        events = pd.DataFrame({"kind": table["kind"], "modality": "audio"})
        events["language"] = self._study.language
        found = {f"{kind}s": int((table["kind"] == kind).sum()) for kind in KINDS}
        compare(str(self), COUNTS[self.task], found, "the events file is incomplete or was edited")
        events["start"] = numbers_of(table, "onset", path, required=True)
        events["duration"] = numbers_of(table, "duration", path, minimum=0, required=True)
        for column in LABELS:
            events[column] = table[column]
        for column in NUMBERS:
            events[column] = numbers_of(table, column, path)
        events = events.sort_values("start", kind="stable")
        is_word = events["kind"] == "word"
        words = events["word"][is_word].groupby(events["sequence_id"][is_word])
        events["word_sequence"] = words.transform(" ".join)
        events["sequence_id"] = events["sequence_id"].map("{:g}".format, na_action="ignore")
        return self._with_sounds(events, table["sound"])

    def _with_sounds(self, events: pd.DataFrame, names: "pd.Series[str]") -> pd.DataFrame:
        """Add ``filepath``, ``offset`` and the duration of sounds."""
        is_sound = events["kind"] == "sound"
        files = [self._study.root / sound_file(name) for name in names.loc[events.index][is_sound]]
        starts = events["start"][is_sound].to_numpy(float)
        said = events[~is_sound]
        onsets = said["start"].to_numpy(float)
        ends = onsets + said["duration"].to_numpy(float)
        durations = []
        for file, start, next_start in zip(files, starts, [*starts[1:], np.inf], strict=True):
            inside = (onsets >= start) & (onsets < next_start)
            spoken = np.max(ends[inside] - start, initial=0.0)
            durations.append(sound_duration(file) if file.exists() else spoken)
            if spoken > durations[-1] + END_TOLERANCE:
                raise DataError(
                    f"{file} lasts {durations[-1]:.3f} s, but by {self.events_file} it has words "
                    f"in it up to {spoken:.3f} s. Is it the right file, and complete?"
                )
        events.loc[is_sound, "duration"] = durations
        events.loc[is_sound, "filepath"] = [str(file) for file in files]
        events.loc[is_sound, "offset"] = 0.0
        self._study.report_missing(file for file in files if not file.exists())
        return events


def sound_file(name: str) -> str:
    """Path of the file that a line means.

    The files are all lower case, and lines of kind sound write their number as a float:
    "stimuli/audio/The_Black_Willow_0.0.wav" is "stimuli/audio/the_black_willow_0.wav".
    """
    stem, *number, extension = name.lower().rsplit(".", 2)
    return ".".join([stem, extension] if number == ["0"] else [stem, *number, extension])


def _read_table(path: Path) -> pd.DataFrame:
    """One column for each key, in both forms of the file; what an event needs is there."""
    table = read_tsv(path)
    for column in ("onset", "duration", "trial_type"):
        if column not in table:
            hint = did_you_mean(column, table.columns)
            raise DataError(f"{path}: no column {column!r}. {hint}")
    if "kind" not in table:
        table = table[["onset", "duration"]].join(_unfolded(table["trial_type"], path))
    for column in ("sound", *LABELS, *NUMBERS):
        if column not in table:
            table[column] = None
    unknown = ~table["kind"].isin(KINDS)
    if unknown.any():
        fault = f"{table['kind'][unknown].iloc[0]!r} is none of {', '.join(KINDS)}"
        fail(path, table.index[unknown], "kind", fault)
    endless = table["sound"].str.len() > LONGEST_NAME
    if endless.any():
        fail(path, table.index[endless], "sound", "no file can have a name as long as this")
    for kind, columns in NEEDED.items():
        for column in columns:
            lacking = (table["kind"] == kind) & table[column].isna()
            if lacking.any():
                fail(path, table.index[lacking], column, f"a {kind} without it")
    return table


def _unfolded(cells: "pd.Series[str]", path: Path) -> pd.DataFrame:
    """Read the dictionary in each cell."""
    rows = []
    for line, cell in zip(cells.index.to_numpy(), cells, strict=True):
        try:
            row = ast.literal_eval(cell)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            row = None
        if not isinstance(row, dict) or "kind" not in row:
            fault = f"{str(cell)[:60]!r} is no dictionary with a 'kind'"
            fail(path, pd.Index([line]), "trial_type", fault)
        rows.append({str(key): str(value) for key, value in row.items()})
    return pd.DataFrame(rows, index=cells.index, dtype=object)
