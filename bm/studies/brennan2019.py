"""Alice: the first chapter of "Alice's Adventures in Wonderland", heard under EEG.

Enters: the dataset's folder, in either of its two releases. Leaves: `Recording`s, one for each
listener. Event times come from the authors' tables of trials (`proc`), words from one csv.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import mne
import pandas as pd

from bm.core.cache import Cache
from bm.core.hashing import file_fingerprint
from bm.core.messages import DataError, check_choice
from bm.events import UNLABELLED
from bm.recordings import Recording
from bm.studies.alice import (
    GAP,
    SAMPLE_RATE,
    published_onsets,
    read_story,
    sound_starts,
    word_onsets,
)
from bm.studies.base import Study, register, where_from
from bm.studies.expected import Facts, Tally, compare, take_stock
from bm.studies.formats.fieldtrip import read_bad_sensors, read_data, read_trials
from bm.studies.formats.files import missing, named_files
from bm.studies.stimuli import SoundLengths

logger = logging.getLogger(__name__)

MONTAGE = "easycap-M10"
REFERENCE = "29"
"""Electrode of the montage against which the others were measured: it has no channel."""
EYE = "VEOG"
SOUND_COPY = ("AUD", "Aux5")
"""Names of the channel with a copy of the sound; the second is renamed to the first."""
STORY = "AliceChapterOne-EEG.csv"
SOUND = "audio/DownTheRabbitHoleFinal_SoundFile{}.wav"
TRIALS = ("proc", "timelock-preprocessing")
"""Folder of the tables of trials in the first and in the second release."""
NOT_PUBLISHED = ("S02", "S24", "S26", "S27", "S30", "S32", "S34", "S35", "S36")
"""Left out by the published code: in most, the trigger of the first sound is missing."""
READER_VERSION = 2


@register
class Brennan2019(Study):
    """49 people hear 12 minutes of Alice; event times are known for 42: 8.5 h of EEG.

    - Sensors: 60 electrodes (easyCAP M10 without 29, the reference), actiCHamp, 500 Hz; one channel
      at an eye, and for most a copy of the sound. University of Michigan.
    - Stimuli: 12 sound files of a LibriVox reading, 2129 words in 84 sentences.
    - Licence: CC BY 4.0. No registration.
    - Data: doi:10.7302/Z29C6VNH (2018, MATLAB) or doi:10.7302/746w-g237 (2023, BrainVision).
    - Brennan and Hale 2019, PLoS ONE 14(1):e0207741, doi:10.1371/journal.pone.0207741.

    Each word begins at the *onset* of its trial. Where the triggers of the first sounds are
    missing, the table of trials has the labels of earlier sounds; the true ones are found by the
    times between sounds, and their words taken from the story. What these eight (or nine) people
    heard before, about 57 s, is marked as unlabelled, so that no segment takes speech for silence.

    Four words that lost their apostrophe in the csv get it back; blocks are still known by the text
    as it stands there, so that splits stay as published.

    Parameters
    ----------
    path : folder with `S01.mat` (or `S01.vhdr`) ..., `proc`, `audio` and the csv, or the one above,
        if it is `download`.
    subjects : labels to use ("S01", "S02", ...); all if not given.
    bad_sensors : leave out the electrodes that the authors found bad. Published: no.
    faithful : as published (Défossez et al. 2023): all words and sounds 0.3 s early, since the
        start of a trial was taken for the onset of its word; words joined to trials by row; nine
        people left out.
    """

    name = "brennan2019"
    facts = Facts(
        licence="CC BY 4.0",
        doi="10.7302/Z29C6VNH",
        subjects=42,
        recordings=42,
        hours=(8.4, 8.7),
        counts={
            "sensors": 60,
            "seconds": (726, 747),
            "sounds": 12,
            "words": 2129,
            "sentences": 84,
        },
    )
    published = replace(facts, subjects=33, recordings=33, hours=(6.65, 6.75))

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        subjects: str | Sequence[str] | None = None,
        bad_sensors: bool = False,
        faithful: bool = False,
        cache: Cache,
    ):
        super().__init__(path, cache=cache)
        if self.path is None:
            raise ValueError(f"Study {self.name!r} needs the path of its data.")
        below = self.path / "download"
        self.root = below if below.is_dir() and not (self.path / STORY).exists() else self.path
        self.subjects = [subjects] if isinstance(subjects, str) else subjects
        self.bad_sensors = bad_sensors
        self.faithful = faithful
        self.sounds = SoundLengths()

    @cached_property
    def story(self) -> pd.DataFrame:
        """All words that were read out (see `read_story`)."""
        return read_story(self.root / STORY)

    def recordings(self) -> Iterator[Recording]:
        """All people of whom there are a signal and a table of trials, by label."""
        if not (self.root / STORY).exists():
            raise missing(self.root / STORY, where_from(self.name))
        signals = {
            file.stem: file
            for extension in ("vhdr", "mat")
            for file in named_files(self.root, rf"S\d\d\.{extension}")
        }
        trials = {
            file.stem: file
            for folder in reversed(TRIALS)
            for file in named_files(self.root / folder, r"S\d\d\.mat")
        }
        chosen = self._chosen(signals.keys() | trials.keys())
        found = [label for label in chosen if label in signals and label in trials]
        for there, absent, what in (
            (signals, trials, "without a table of trials (the seven noisiest have none)"),
            (trials, signals, "without a signal"),
        ):
            lacking = [label for label in chosen if label in there and label not in absent]
            if lacking:
                listed = ", ".join(lacking)
                logger.warning(
                    "%s: %d recording(s) %s skipped: %s.", self.root, len(lacking), what, listed
                )
        if not trials:
            raise missing(self.root / TRIALS[0] / "S01.mat", "So are the other tables of trials.")
        if not found:
            raise DataError(
                f"{self.root}: nobody has both a signal (S01.mat, or S01.vhdr) and a table of "
                f"trials ({TRIALS[0]}/S01.mat): {len(signals)} signal(s), {len(trials)} table(s)."
            )
        facts = self.published if self.faithful else self.facts
        tally = take_stock(str(self.root), facts, found, found, part=self.subjects is not None)
        for label in found:
            yield Brennan2019Recording(self, label, signals[label], trials[label], tally)

    def _chosen(self, known: Iterable[str]) -> list[str]:
        known = sorted(known)
        if self.faithful:
            left_out = [label for label in known if label in NOT_PUBLISHED]
            logger.info("%s: left out, as published: %s.", self.root, ", ".join(left_out))
            known = [label for label in known if label not in NOT_PUBLISHED]
        if self.subjects is None:
            return known
        for subject in self.subjects:
            check_choice("subject", subject, known)
        return [label for label in known if label in self.subjects]


class Brennan2019Recording(Recording):
    """The chapter, heard by one person."""

    def __init__(
        self, study: Brennan2019, label: str, signal_file: Path, trials_file: Path, tally: Tally
    ):
        super().__init__(study.name, label, label, study.cache)
        self.signal_file = signal_file
        self.trials_file = trials_file
        self._study = study
        self._tally = tally

    def source_files(self) -> list[Path]:
        """The signal."""
        if self.signal_file.suffix == ".vhdr":
            return [self.signal_file, self.signal_file.with_suffix(".eeg")]
        return [self.signal_file]

    @property
    def options(self) -> dict[str, Any]:
        """Electrodes left out: part of the signal."""
        if not self._study.bad_sensors:
            return {}
        return {"bad_sensors": file_fingerprint([self.trials_file])}

    def event_key(self) -> dict[str, Any]:
        """Trials, story, and sound files, whose lengths are durations."""
        root = self._study.root
        sounds = sorted((root / SOUND).parent.glob("*.wav"))
        return {
            "reader": READER_VERSION,
            "faithful": self._study.faithful,
            "root": str(root),
            "texts": file_fingerprint([self.trials_file, root / STORY]),
            "sounds": file_fingerprint(sound for sound in sounds if sound.exists()),
        }

    def load_raw(self) -> "mne.io.BaseRaw":
        """Signal with electrode positions; the copy of the sound, if there is one, is "AUD"."""
        path = self.signal_file
        if path.suffix == ".vhdr":
            raw = read_brainvision(path)
        else:
            raw = read_data(path, "raw", SAMPLE_RATE)
        names = place_electrodes(raw, path)
        if self._study.bad_sensors:
            bad = read_bad_sensors(self.trials_file, "proc")
            raw.info["bads"] = [name for name in names if name in bad]
        seconds = float(raw.n_times / raw.info["sfreq"])
        if self._tally.add(self.recording_uid, seconds):
            cause = "the file was cut, or it is none of this study"
            found = {"sensors": len(names), "seconds": round(seconds, 1)}
            compare(str(self), self._study.facts.counts, found, cause)
        return raw

    def load_events(self) -> pd.DataFrame:
        """Sounds and words; where the first sounds can't be placed, a stretch without labels."""
        story, path = self._study.story, self.trials_file
        columns = ("segment", "tmin", "Order")
        trials = read_trials(path, "proc", columns, "Unpack proc.zip beside the signals.")
        if self._study.faithful:
            onsets, starts = published_onsets(trials, story, path)
            words = story.assign(start=onsets, word=story["text"]).drop(columns="sequence_uid")
            words = _begun_before(words)
        else:
            starts = sound_starts(trials, story, path)
            words = story.assign(start=word_onsets(trials, story, starts, path))
            words = words[words["start"].notna()]
        words = words.drop(columns=["text", "order", "onset"])
        words["sequence_id"] = words.pop("sentence").astype(str)
        sentences = words.groupby("sequence_id", sort=False)
        words["word_index"] = sentences.cumcount().astype(float)
        words["word_sequence"] = sentences["word"].transform(" ".join)
        words["kind"], words["condition"] = "word", "sentence"
        found = {"sounds": len(starts), "words": len(words), "sentences": sentences.ngroups}
        cause = "the story or the table of trials is incomplete"
        if len(starts) < story["segment"].nunique():
            cause = "the trigger of the first sound is missing, so that it can't be placed"
        compare(str(self), self._study.facts.counts, found, cause)
        events = pd.concat([_before(starts), self._sounds(starts), words])
        events["modality"], events["language"] = "audio", "en"
        return events.sort_values("start", kind="stable", ignore_index=True)

    def _sounds(self, starts: "pd.Series[float]") -> pd.DataFrame:
        """Sound events; each as long as its file or, where that is absent, its words."""
        story = self._study.story
        ends = (story["onset"] + story["duration"]).groupby(story["segment"]).max()
        files = [self._study.root / SOUND.format(segment) for segment in starts.index]
        durations = self._study.sounds.of(files, ends.reindex(starts.index).tolist(), STORY)
        return pd.DataFrame(
            {
                "kind": "sound",
                "start": starts.to_numpy(float),
                "duration": durations,
                "filepath": [str(file) for file in files],
                "offset": 0.0,
                "segment": starts.index,
            }
        )


def read_brainvision(path: Path) -> "mne.io.BaseRaw":
    """Read a signal of the second release."""
    raw = mne.io.read_raw_brainvision(path, verbose="error")
    (signal,) = raw.filenames
    n_bytes = {"short": 2}.get(str(raw.orig_format), 4)
    if Path(signal).stat().st_size % (n_bytes * len(raw.ch_names)):
        raise DataError(f"{signal} is truncated: it ends within a sample. Download it again.")
    if raw.info["sfreq"] != SAMPLE_RATE:
        raise DataError(
            f"{path}: {raw.info['sfreq']:g} Hz, but event times count samples at {SAMPLE_RATE:g} "
            "Hz. Use the file as published, not resampled."
        )
    return raw


def place_electrodes(raw: "mne.io.BaseRaw", path: Path) -> list[str]:
    """Give each channel its type and each electrode its place; return the electrodes' names."""
    montage = mne.channels.make_standard_montage(MONTAGE)
    electrodes = [name for name in montage.ch_names if name != REFERENCE]
    lacking = [name for name in electrodes if name not in raw.ch_names]
    numbered = [name for name in raw.ch_names if name.isdigit()]
    unknown = [name for name in numbered if name not in electrodes]
    if lacking or unknown:
        raise DataError(
            f"{path}: {len(numbered)} electrodes instead of {len(electrodes)} (not there: "
            f"{', '.join(lacking) or 'none'}; unknown: {', '.join(unknown) or 'none'}). Is it a "
            "signal of this study, with the channels as published?"
        )
    others = [name for name in raw.ch_names if name not in electrodes]
    kinds = {name: "eog" if name == EYE else "misc" for name in others}
    raw.set_channel_types(kinds, on_unit_change="ignore", verbose="error")
    copy, other_name = SOUND_COPY
    if other_name in others and copy not in others:
        raw.rename_channels({other_name: copy}, verbose="error")
    raw.set_montage(montage, verbose="error")
    return electrodes


def _before(starts: "pd.Series[float]") -> pd.DataFrame:
    """The stretch in which sounds were heard that can't be placed; none if all can."""
    is_lost = starts.index.min() > 1
    stretch = {"kind": UNLABELLED, "start": 0.0, "duration": max(starts.min() - GAP, 0.0)}
    return pd.DataFrame([stretch] if is_lost else [])


def _begun_before(words: pd.DataFrame) -> pd.DataFrame:
    """Cut words that are placed before the recording where it begins: they still open a block."""
    early = (-words["start"]).clip(lower=0.0)
    duration = (words["duration"] - early).clip(lower=0.0)
    return words.assign(start=words["start"] + early, duration=duration)
