"""MOUS, the Mother Of Unification Studies: Dutch sentences and word lists, heard or read in MEG.

Enters: the collection as downloaded, and TextGrids with the words of its sounds. Leaves:
`Recording`s. What was presented comes from the logs of Presentation, when from the triggers that
the MEG received.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mne
import pandas as pd

from bm.core.cache import Cache
from bm.core.hashing import file_fingerprint
from bm.core.messages import DataError, check_choice
from bm.recordings import Recording
from bm.studies.base import Study, register, where_from
from bm.studies.expected import Facts, Tally, compare, take_stock
from bm.studies.formats.ctf import read_ds
from bm.studies.formats.files import named_files
from bm.studies.mous.events import heard, seen
from bm.studies.mous.stimuli import Stimuli
from bm.studies.mous.timing import timed_as_published, timed_by_triggers

logger = logging.getLogger(__name__)

LOGS = "sourcedata/meg_task"
LETTER = {"audio": "A", "visual": "V"}
TASK = {"audio": "auditory", "visual": "visual"}
LOG_OF = {"audio": "aud", "visual": "vis"}
DELAY = {"audio": 0.060, "visual": 0.036}
"""Seconds from a trigger to the ear (air tubes; it varies) and to the screen (projector)."""
N_ITEMS = {"A2002": 220, "A2009": 219, "A2116": 225}
"""Items of those whose recording doesn't hold all 240."""
NOT_PUBLISHED = ("V1115",)
"""Left out by the published code, beside all with two runs."""
READER_VERSION = 1


@register
class Schoffelen2019(Study):
    """MOUS: 102 people hear, and 102 others read, 120 Dutch sentences and 120 word lists.

    - Sensors: 273 axial gradiometers (CTF-275, Donders Institute, Nijmegen), 1200 Hz; 28
      references, electrodes at eyes and heart, and a copy of the sound (UADC003, UADC004).
    - Stimuli: of 360 sentences and 360 lists of the same words, each person gets a third, in 24
      blocks of 5. About 50 min a person; the 96 listeners of the published tables make 80.9 h.
    - Licence: RU-DI-HD-1.0, a data use agreement to be signed; no redistribution.
    - Data: https://data.donders.ru.nl, collection DSC_3011020.09_236, doi:10.34973/37n0-yc51. The
      words and phonemes of the sounds aren't part of it: put TextGrids, as WebMAUS makes them, into
      `derivatives/phonemes`.
    - Schoffelen, Oostenveld, Lam, Uddén, Hultén and Hagoort 2019, Scientific Data 6:17,
      doi:10.1038/s41597-019-0020-y.

    Each sound file begins with its trigger 14, each word that was read with its own, plus the time
    to the ear or eye. Triggers that are missing are found from those around them. People with two
    runs have two recordings. A sentence and its word list have numbers of their own, and so splits.

    Parameters
    ----------
    path : folder with `sub-A2002` ..., `sourcedata`, `stimuli` and `derivatives`, or the one above,
        if it is `download`.
    modality : "audio" (those who listened) or "visual" (those who read).
    subjects : labels to use ("A2002", ...); all of the modality if not given.
    stimulus_delay : seconds from trigger to ear or eye; not given: 0.060 or 0.036, as in the paper
        on the data. 0: the triggers' own times.
    faithful : as published (Défossez et al. 2023): a sound begins with the line "Audio onset" of
        the log, 46 ms late, and ends with its last word; lines are placed by counting off contexts
        and fixation crosses; no delay; people with two runs and V1115 are left out, and so is what
        comes after the last trigger; `events_filter` has no effect.
    """

    name = "schoffelen2019"
    facts = Facts(
        licence="RU-DI-HD-1.0",
        doi="10.34973/37n0-yc51",
        subjects=102,
        recordings=108,
        hours=(83, 92),
        counts={"items": 240, "sensors": 273, "Hz": 1200},
    )
    by_modality: Mapping[tuple[str, bool], Facts] = {
        ("audio", False): facts,
        ("audio", True): replace(facts, subjects=96, recordings=96, hours=(80.4, 81.4)),
        ("visual", False): replace(
            facts, recordings=104, hours=(75, 130)
        ),  # estimated: not published
        ("visual", True): replace(facts, subjects=99, recordings=99, hours=(75, 130)),
    }
    """What to expect of a modality, without and with `faithful`."""

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        modality: str = "audio",
        subjects: str | Sequence[str] | None = None,
        stimulus_delay: float | None = None,
        faithful: bool = False,
        cache: Cache,
    ):
        super().__init__(path, cache=cache)
        if self.path is None:
            raise ValueError(f"Study {self.name!r} needs the path of its data.")
        check_choice("modality", modality, LETTER)
        if faithful and stimulus_delay:
            raise ValueError(
                f"stimulus_delay={stimulus_delay} with faithful=True: as published there is none. "
                "Leave out one of them."
            )
        below = self.path / "download"
        self.root = below if below.is_dir() else self.path
        self.modality = modality
        self.subjects = [subjects] if isinstance(subjects, str) else subjects
        self.delay = 0.0 if faithful else DELAY[modality]
        if stimulus_delay is not None:
            self.delay = float(stimulus_delay)
        self.faithful = faithful
        self.expected = self.by_modality[modality, faithful]
        self.stimuli = Stimuli(self.root)

    def recordings(self) -> Iterator[Recording]:
        """All recordings of the modality, by subject and run."""
        found = self._published(self._find()) if self.faithful else self._find()
        if not found:
            letter, task = LETTER[self.modality], TASK[self.modality]
            raise DataError(
                f"{self.root}: no recording of MOUS with modality={self.modality!r}, such as "
                f"sub-{letter}2002/meg/sub-{letter}2002_task-{task}_meg.ds with its log in {LOGS}. "
                f"{where_from(self.name)}"
            )
        subjects = {label for label, _ in found}
        names = [recording_name(label, signal) for label, signal in found]
        part = self.subjects is not None
        tally = take_stock(str(self.root), self.expected, subjects, names, part)
        for label, signal in found:
            yield Schoffelen2019Recording(self, label, signal, self._logs(label), tally)

    def _find(self) -> list[tuple[str, Path]]:
        """Subject and signal of each recording that has a log, or a table of events."""
        absent, found = [], []
        for label in self._subjects():
            stem = f"sub-{label}_task-{TASK[self.modality]}"
            folder = self.root / f"sub-{label}" / "meg"
            signals = named_files(folder, rf"{stem}(_run-\d+)?_meg\.ds")
            if not signals:
                absent.append(f"{folder / stem}_meg.ds is missing")
            for signal in signals:
                if self._logs(label) or (not self.faithful and events_file(signal).exists()):
                    found.append((label, signal))
                else:
                    absent.append(f"{signal} has no log in {LOGS}")
        if absent:
            more = ", ..." if len(absent) > 1 else ""
            logger.warning(
                "%s: %d recording(s) absent, %d used (%s%s).",
                self.root, len(absent), len(found), absent[0], more,
            )  # fmt: skip
        return found

    def _subjects(self) -> list[str]:
        folders = named_files(self.root, rf"sub-{LETTER[self.modality]}\d+")
        known = [folder.name.removeprefix("sub-") for folder in folders if folder.is_dir()]
        for subject in self.subjects or ():
            check_choice("subject", subject, known)
        return [label for label in known if self.subjects is None or label in self.subjects]

    def _logs(self, label: str) -> list[Path]:
        """Logs of a person, such as A2002-2-MEG-MOUS-Aud.log, in the order of their names."""
        other = next(part for modality, part in LOG_OF.items() if modality != self.modality)
        logs = []
        for file in sorted((self.root / LOGS).glob("*.[lL][oO][gG]")):
            parts = re.split(r"[-_. ]", file.name.lower())
            if label.lower() in parts and other not in parts:
                logs.append(file)
        return logs

    def _published(self, found: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
        """Those that the published code doesn't leave out."""
        left_out = {label for label, signal in found if run_of(signal) or label in NOT_PUBLISHED}
        if left_out:
            logger.info("%s: left out, as published: %s.", self.root, ", ".join(sorted(left_out)))
        return [(label, signal) for label, signal in found if label not in left_out]


class Schoffelen2019Recording(Recording):
    """One person, or one of their two runs."""

    def __init__(
        self, study: Schoffelen2019, label: str, signal: Path, logs: Sequence[Path], tally: Tally
    ):
        super().__init__(
            study.name,
            label,
            recording_name(label, signal),
            study.cache,
            session=run_of(signal),
            block_rule="sentence_or_sound",
            merge_blocks=False,
        )
        self.signal = signal
        self.logs = logs
        self._study = study
        self._tally = tally

    def source_files(self) -> list[Path]:
        """All files of the signal."""
        return [file for file in sorted(self.signal.rglob("*")) if file.is_file()]

    def event_key(self) -> dict[str, Any]:
        """Options, logs, and stimuli, whose lengths are durations."""
        study = self._study
        tables = [*self.logs, events_file(self.signal)]
        return {
            "reader": READER_VERSION,
            "modality": study.modality,
            "delay": study.delay,
            "faithful": study.faithful,
            "root": str(study.root),
            "tables": file_fingerprint(table for table in tables if table.exists()),
            "stimuli": study.stimuli.digest,
        }

    def events(self, filtered: bool = True) -> pd.DataFrame:
        """Table of events (see `bm.recordings.Recording.events`)."""
        if self._study.faithful and self.events_filter:
            logger.warning("%s: as published, events_filter has no effect.", self)
            self.events_filter = None
        return super().events(filtered)

    def load_raw(self) -> "mne.io.BaseRaw":
        """Signal with all its channels, of which the MEG sensors are data."""
        raw = read_ds(self.signal)
        if self._tally.add(self.recording_uid, raw.n_times / raw.info["sfreq"]):
            n_sensors = len(mne.pick_types(raw.info, meg=True, ref_meg=False, exclude=[]))
            found = {"sensors": n_sensors, "Hz": raw.info["sfreq"]}
            cause = "the recording comes from another MEG, or some sensors were taken out"
            compare(str(self), self._study.expected.counts, found, cause)
        return raw

    def load_events(self) -> pd.DataFrame:
        """Sounds, words and phonemes, or the words that were read."""
        study = self._study
        raw = self.load_raw()
        if study.faithful:
            rows = timed_as_published(self.logs, raw, str(self))
        else:
            rows = timed_by_triggers(self.logs, events_file(self.signal), self.signal, raw)
        build = heard if study.modality == "audio" else seen
        events = build(rows, study.stimuli, str(self), study.delay, study.faithful)
        if not len(events):
            raise DataError(
                f"{self}: no {'sound' if study.modality == 'audio' else 'word'} was presented by "
                f"{', '.join(str(log) for log in self.logs) or events_file(self.signal)}. Is it "
                "the log of this task?"
            )
        duration = raw.n_times / raw.info["sfreq"]
        inside = (events["start"] < duration) & (events["start"] + events["duration"] > 0)
        if not inside.all():
            logger.info("%s: %d event(s) of the log aren't in it.", self, (~inside).sum())
        events = events[inside].assign(modality=study.modality, language="nl")
        self._count(events)
        return events.sort_values("start", kind="stable", ignore_index=True)

    def _count(self, events: pd.DataFrame) -> None:
        expected = {"items": N_ITEMS.get(self.subject_uid, 240)} if not self.session else {}
        is_item = events["kind"] == "sound"
        if self._study.modality == "visual":
            is_item = events["word_index"] == 0
        cause = "the recording began late or was broken off, or the log was"
        compare(str(self), expected, {"items": int(is_item.sum())}, cause)


def run_of(signal: Path) -> str:
    """Number of the run; "" if there is one only."""
    match = re.search(r"_run-(\d+)_", signal.name)
    return match[1] if match else ""


def recording_name(label: str, signal: Path) -> str:
    """Person, and run if there are several."""
    run = run_of(signal)
    return f"{label}_run-{run}" if run else label


def events_file(signal: Path) -> Path:
    """The authors' table of events of a recording."""
    return signal.with_name(signal.name.removesuffix("_meg.ds") + "_events.tsv")
