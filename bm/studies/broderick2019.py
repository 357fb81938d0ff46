"""The Old Man and the Sea: an audiobook heard under EEG (Broderick et al. 2018, as brain data).

Enters: the dataset's folder "Natural Speech", and beside it the sounds with their alignment.
Leaves: `Recording`s, one for each listener and run; sample 0 is the beginning of the sound.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd

from bm.core.cache import Cache
from bm.core.hashing import file_fingerprint
from bm.core.messages import DataError, check_choice
from bm.recordings import Recording
from bm.studies.base import Study, register, where_from
from bm.studies.expected import Facts, Tally, compare, take_stock
from bm.studies.formats.files import missing, named_files, read_mat
from bm.studies.oldman import MIN_WORDS, Run, heard_events
from bm.studies.stimuli import SoundLengths

logger = logging.getLogger(__name__)

EEG = "Natural Speech/EEG"
STIMULI = "private"
MONTAGE = "biosemi128"
MICROVOLT = 1e-6
PUBLISHED_SCALE = 1e6
NO_EEG = "It comes out of 'Natural Speech.zip', a part of the download from Dryad."
NO_STIMULI = (
    "The sounds (audio1.wav, ...), Gentle's alignments (align1.json, ...) and texts "
    "(oldman_run1.txt, ...) are not part of the dataset, for copyright. Put them here; the sounds "
    "are also in OpenNeuro's ds004408."
)
READER_VERSION = 1


@register
class Broderick2019(Study):
    """19 people hear an hour of an audiobook in 20 runs: 380 recordings, 19 h of EEG.

    - Sensors: 128 electrodes (BioSemi) and two at the mastoids, published at 128 Hz. Trinity
      College Dublin.
    - Stimuli: 20 sounds of three minutes, read by a man; more than 450 words in each.
    - Licence: CC0. Sounds, texts and alignments are not published with it.
    - Data: doi:10.5061/dryad.070jc (only "Natural Speech" is needed).
    - Broderick, Anderson, Di Liberto, Crosse and Lalor 2018, Current Biology 28(5):803-809,
      doi:10.1016/j.cub.2018.01.080.

    Where in the text each word stands tells its sentence, so every word has one; sentences end with
    their punctuation. In run 15 the alignment is visibly off around 170 s.

    Parameters
    ----------
    path : folder with "Natural Speech" and "private", or the one above, if it is `download`.
    subjects : numbers to use (1 to 19); all if not given.
    faithful : as published (Défossez et al. 2023): EEG 10^12 times too large; sentences by spaCy,
        and words joined to them by comparing texts. Other versions of spaCy make other sentences,
        and so other splits.
    spacy_model : name or folder of the model for `faithful`.
    """

    name = "broderick2019"
    facts = Facts(
        licence="CC0 1.0",
        doi="10.5061/dryad.070jc",
        subjects=19,
        recordings=380,
        hours=(19.1, 19.5),
        counts={
            "sensors": 128,
            "seconds": (165, 210),
            "sounds": 1,
            "words": (MIN_WORDS, np.inf),
        },
    )

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        subjects: int | str | Sequence[int | str] | None = None,
        faithful: bool = False,
        spacy_model: str = "en_core_web_md",
        cache: Cache,
    ):
        super().__init__(path, cache=cache)
        if self.path is None:
            raise ValueError(f"Study {self.name!r} needs the path of its data.")
        below = self.path / "download"
        self.root = below if below.is_dir() and not (self.path / EEG).exists() else self.path
        if isinstance(subjects, int | str):
            subjects = [subjects]
        self.subjects = None if subjects is None else [str(subject) for subject in subjects]
        self.faithful = faithful
        self.spacy_model = spacy_model
        self.sounds = SoundLengths()

    def recordings(self) -> Iterator[Recording]:
        """All recordings, by the numbers of subject and run."""
        for folder, remedy in ((EEG, NO_EEG), (STIMULI, NO_STIMULI)):
            if not (self.root / folder).is_dir():
                raise missing(self.root / folder, f"{remedy} {where_from(self.name)}")
        found = {
            (subject, _number(file.stem)): file
            for subject, folder in self._subjects().items()
            for file in named_files(folder, rf"{folder.name}_Run\d+\.mat")
        }
        if not found:
            raise DataError(
                f"{self.root / EEG}: no recording such as Subject1/Subject1_Run1.mat. Unpack "
                "'Natural Speech.zip' again."
            )
        subjects = {subject for subject, _ in found}
        n_absent = len(subjects) * len({run for _, run in found}) - len(found)
        if n_absent:
            logger.warning("%s: %d recording(s) absent, %d used.", self.root, n_absent, len(found))
        names = [f"{subject}_run{run}" for subject, run in found]
        part = self.subjects is not None
        tally = take_stock(str(self.root), self.facts, subjects, names, part)
        for (subject, run), file in sorted(found.items()):
            yield Broderick2019Recording(self, subject, run, file, tally)

    def _subjects(self) -> dict[int, Path]:
        """Folders by number, in the order of numbers."""
        folders = {_number(path.name): path for path in named_files(self.root / EEG, r"Subject\d+")}
        if self.subjects is not None:
            for subject in self.subjects:
                check_choice("subject", subject, map(str, folders))
            folders = {key: path for key, path in folders.items() if str(key) in self.subjects}
        return dict(sorted(folders.items()))


class Broderick2019Recording(Recording):
    """One run, heard by one person."""

    def __init__(
        self, study: Broderick2019, subject: int, run: int, signal_file: Path, tally: Tally
    ):
        super().__init__(study.name, str(subject), f"{subject}_run{run}", study.cache)
        self.signal_file = signal_file
        self.run = Run.of(study.root / STIMULI, run)
        self._study = study
        self._tally = tally

    def source_files(self) -> list[Path]:
        """The signal."""
        return [self.signal_file]

    @property
    def options(self) -> dict[str, Any]:
        """The scale, part of the signal."""
        return {"faithful": self._study.faithful}

    def event_key(self) -> dict[str, Any]:
        """Alignment, text, and the sound file, whose length is its duration."""
        files = [self.run.alignment, self.run.text, self.run.sound]
        return {
            "reader": READER_VERSION,
            "root": str(self._study.root),
            "spacy_model": self._study.spacy_model if self._study.faithful else None,
            "stimuli": file_fingerprint(file for file in files if file.exists()),
        }

    def load_raw(self) -> "mne.io.BaseRaw":
        """Signal in volts with electrode positions; the mastoids are no EEG channels here."""
        path = self.signal_file
        names = mne.channels.make_standard_montage(MONTAGE).ch_names
        variables = read_mat(path, ["eegData", "fs"], optional=["mastoids"])
        data = _courses(variables["eegData"], path, "eegData", len(names))
        kinds = ["eeg"] * len(names)
        if "mastoids" in variables:
            mastoids = _courses(variables["mastoids"], path, "mastoids", 2)
            if mastoids.shape[1] != data.shape[1]:
                raise DataError(
                    f"{path}: {data.shape[1]} samples of eegData, but {mastoids.shape[1]} of "
                    "mastoids. Download it again."
                )
            data = np.concatenate([data, mastoids])
            names, kinds = [*names, "mastoid 1", "mastoid 2"], [*kinds, "misc", "misc"]
        info = mne.create_info(names, _rate(variables["fs"], path), kinds)
        scale = PUBLISHED_SCALE if self._study.faithful else MICROVOLT
        raw = mne.io.RawArray(data * scale, info, verbose="error")
        raw.set_montage(MONTAGE, verbose="error")
        seconds = float(raw.n_times / raw.info["sfreq"])
        if self._tally.add(self.recording_uid, seconds):
            cause = "the file was cut, or it is none of this study"
            found = {"sensors": kinds.count("eeg"), "seconds": round(seconds, 1)}
            compare(str(self), self._study.facts.counts, found, cause)
        return raw

    def load_events(self) -> pd.DataFrame:
        """The sound, its words and phonemes."""
        model = self._study.spacy_model if self._study.faithful else None
        events = heard_events(self.run, self._study.sounds, model)
        kinds = events["kind"].value_counts()
        found = {f"{kind}s": int(kinds[kind]) for kind in ("sound", "word")}
        cause = f"{self.run.alignment.name} was cut, or is not of this run"
        compare(str(self), self._study.facts.counts, found, cause)
        return events


def _courses(values: Any, path: Path, name: str, n_channels: int) -> np.ndarray:
    """[C, T] float64 from [T, C]."""
    courses = np.asarray(values)
    if courses.dtype.kind not in "iuf" or courses.ndim != 2 or courses.shape[1] != n_channels:
        raise DataError(
            f"{path}: {name} is of shape {courses.shape}, not (time, {n_channels}). Is it a file "
            "of this study, with the channels as published?"
        )
    return courses.T.astype(np.float64)


def _rate(value: Any, path: Path) -> float:
    """Sample rate in Hz, whichever type of number it is stored as."""
    number = np.ravel(np.asarray(value))
    if len(number) != 1 or number.dtype.kind not in "iuf" or not number[0] > 0:
        raise DataError(f"{path}: fs={value!r} is no sample rate in Hz.")
    return float(number[0])


def _number(name: str) -> int:
    """Last number in a name."""
    return int("".join(c if c.isdigit() else " " for c in name).split()[-1])
