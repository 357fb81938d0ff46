"""One sitting of one person: a raw signal, and the events that were heard in it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mne
import pandas as pd

from bm.core.cache import Cache
from bm.core.hashing import file_fingerprint
from bm.core.messages import DataError
from bm.events import UNLABELLED, match_events, read_events, validate_events, write_events
from bm.recordings.preprocess import Preprocessing, preprocess
from bm.recordings.signal import Signal

EVENTS = "events.parquet"
EVENTS_VERSION = 1


class Recording(ABC):
    """Base of every study's recordings; a study says how to read its files, the rest is here.

    Parameters
    ----------
    study : name of the study, as in `bm.studies.registry`.
    subject_uid, recording_uid : names unique within the study.
    cache : where preprocessed signals and event tables are kept.
    session : name of the session, if the study has several.
    block_rule : what opens a block (see `bm.events.create_blocks`).
    merge_blocks : whether short blocks are merged.
    """

    def __init__(
        self,
        study: str,
        subject_uid: str,
        recording_uid: str,
        cache: Cache,
        session: str = "",
        block_rule: str = "sentence",
        merge_blocks: bool = True,
    ):
        self.study = study
        self.subject_uid = subject_uid
        self.recording_uid = recording_uid
        self.cache = cache
        self.session = session
        self.block_rule = block_rule
        self.merge_blocks = merge_blocks
        self.events_filter: str | None = None

    @abstractmethod
    def load_raw(self) -> "mne.io.BaseRaw":
        """Read the signal at its native rate, not preloaded where the format allows."""

    @abstractmethod
    def load_events(self) -> pd.DataFrame:
        """Read the event table (see `bm.events.table` for its columns)."""

    @abstractmethod
    def source_files(self) -> Sequence[Path]:
        """Files that raw and events come from: the cache is renewed when one is replaced."""

    @property
    def options(self) -> dict[str, Any]:
        """Study options that change the raw signal or the events; part of every cache key."""
        return {}

    def event_key(self) -> dict[str, Any]:
        """What the events alone depend on (their files, options); no reason to renew the signal."""
        return {}

    def __repr__(self) -> str:
        return f"{self.study}/{self.recording_uid}"

    def raw(self) -> "mne.io.BaseRaw":
        """Signal at native rate.

        Raises
        ------
        DataError : the file is missing, truncated or not readable; the message names it.
        """
        try:
            return self.load_raw()
        except DataError:
            raise
        except Exception as error:  # each format's reader raises types of its own
            files = ", ".join(str(file) for file in self.source_files())
            raise DataError(
                f"{self}: cannot read the raw signal ({type(error).__name__}: {error}). "
                f"Is one of these files truncated or not fully downloaded? {files}"
            ) from error

    def events(self, filtered: bool = True) -> pd.DataFrame:
        """Table of events in time order: ``kind, start, duration`` (seconds) and labels.

        Parameters
        ----------
        filtered : only those that the selection's `events_filter` lets through.

        Raises
        ------
        DataError : an annotation is missing or makes no sense; the message names file and row.
        """
        events = read_events(self.events_entry() / EVENTS)
        if self.events_filter is None or not filtered:
            return events
        return filter_events(events, self.events_filter, str(self))

    def events_entry(self) -> Path:
        """Entry of the cache with all events; its name tells what they come from.

        Raises
        ------
        DataError : an annotation is missing or makes no sense; the message names file and row.
        """

        def build(folder: Path) -> None:
            raw = self.raw()
            duration = raw.n_times / raw.info["sfreq"]
            write_events(validate_events(self.load_events(), duration, str(self)), folder / EVENTS)

        key = self._key(version=EVENTS_VERSION, **self.event_key())
        return self.cache.entry("events", key, build, self._label)

    def preprocessed(
        self,
        sample_rate: float = 120.0,
        highpass: float = 0.0,
        bandpass: tuple[float, float] | None = None,
        notch: float | None = None,
    ) -> Signal:
        """Resampled and filtered signal, computed once and kept (see `Preprocessing`)."""
        how = Preprocessing(float(sample_rate), float(highpass), bandpass, notch)

        def build(folder: Path) -> None:
            preprocess(self.raw(), how, folder, str(self))

        return Signal.load(self.cache.entry("signals", self._key(**how.key), build, self._label))

    @property
    def _label(self) -> str:
        return f"{self.study}-{self.recording_uid}"

    def _key(self, **more: Any) -> dict[str, Any]:
        try:
            files = file_fingerprint(self.source_files())
        except FileNotFoundError as error:
            raise DataError(f"{self}: {error.filename} is missing.") from error
        return {
            "study": self.study,
            "recording": self.recording_uid,
            "files": files,
            "options": self.options,
            **more,
        }


def filter_events(events: pd.DataFrame, query: str, source: str) -> pd.DataFrame:
    """Keep the events that match a pandas query, such as ``condition == "sentence"``.

    Sounds are kept whatever the query, as long as an event that matches happens during them;
    unlabelled stretches always.

    Raises
    ------
    ValueError : the query doesn't parse, or names a column that isn't there.
    """
    matches = match_events(events, query, "events_filter", source)
    kept = events[matches & (events["kind"] != "sound")]
    is_sound = events["kind"] == "sound"
    stops = events["start"] + events["duration"]
    heard = [
        bool(((kept["start"] >= start) & (kept["start"] < stop)).any())
        for start, stop in zip(events["start"][is_sound], stops[is_sound], strict=True)
    ]
    keep = matches & ~is_sound.to_numpy()
    keep[is_sound.to_numpy()] = heard
    keep |= (events["kind"] == UNLABELLED).to_numpy()
    return events[keep].reset_index(drop=True)
