"""Whether the events of a recording fit its signal.

Enters: a `Recording`. Leaves: by how much the brain follows the sound and the words, the words
follow the sound, and a recorded copy of the sound follows the sound, with a verdict.

Responses to speech come within some 400 ms. An error in the times of events shifts them by as much,
while nothing else in the data would tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mne
import numpy as np

from bm.core.messages import DataError
from bm.evaluation.lags import MIN_RATE, LagProfile, clean, evoked, lag_profile, pooled
from bm.evaluation.loudness import channel_loudness, sound_loudness
from bm.recordings import Recording, Sensors

EARLIEST, LATEST = 0.0, 0.4
"""Seconds after the sound between which the response must peak."""
LATEST_START = 0.25
"""Seconds by which it must have reached half its height: a response that starts later follows
events that come too early, even if its peak, usually at 0.1 s, still lies before `LATEST`."""
TYPICAL = 0.12
"""Seconds from sound to peak, to say how large an error may be."""
WORD_RANGE = (-0.1, 0.25)
"""Seconds after a word's onset between which its sound is loudest on average."""
COPY_TOLERANCE = 0.05
"""Seconds by which a recorded copy of the sound may be off."""
COPY_CORRELATION = 0.3
MIN_WORDS = 100
EVOKED = (-0.3, 0.9)

OK, MISALIGNED, NOTHING_FOUND = "ok", "MISALIGNED", "no response found"
ALL = "(all)"
"""Stands for the recording in the row of a study as a whole."""


@dataclass(frozen=True)
class SoundCopy:
    """A channel of the recording that holds the sound.

    Attributes
    ----------
    channel : its name.
    profile : how its loudness follows that of the sound.
    """

    channel: str
    profile: LagProfile


@dataclass(frozen=True)
class Alignment:
    """What was found in a recording.

    Attributes
    ----------
    study, recording, subject : who it is.
    sensors : of the signal; the broken ones have no position.
    n_words : how many words were heard or read.
    duration : seconds.
    response : how the brain follows the sound; None without any sound file.
    words : how it follows the onsets of words; None if there are too few.
    words_in_sound : how the sound follows the onsets of words; None without either.
    sound_copy : a recorded copy of the sound; None if there is none.
    evoked : times [L] and courses [C, L] around word onsets, in interquartile ranges.
    """

    study: str
    recording: str
    subject: str
    sensors: Sensors
    n_words: int
    duration: float
    response: LagProfile | None
    words: LagProfile | None
    words_in_sound: LagProfile | None
    sound_copy: SoundCopy | None
    evoked: tuple[np.ndarray, np.ndarray]

    @property
    def judged(self) -> LagProfile:
        """What the verdict is based on: the response to the sound, or else to words."""
        profile = self.response or self.words
        assert profile is not None
        return profile

    @property
    def stimulus(self) -> str:
        """What `judged` is a response to."""
        return "sound" if self.response is not None else "words"

    @property
    def faults(self) -> list[str]:
        """All that shows that events are at the wrong time."""
        faults = []
        shift = misplaced(self.judged)
        if shift is not None:
            faults.append(f"the response to the {self.stimulus} {shift}")
        copy, words = self.sound_copy, self.words_in_sound
        if copy is not None and abs(copy.profile.peak) > COPY_TOLERANCE:
            faults.append(
                f"channel {copy.channel} has the sound {_by(copy.profile.peak)} its event"
            )
        if words is not None and not words.is_found:
            faults.append("words and sound have nothing to do with each other")
        elif words is not None and not WORD_RANGE[0] <= words.peak <= WORD_RANGE[1]:
            faults.append(f"words are heard {_by(words.peak)} their events")
        return faults

    @property
    def verdict(self) -> str:
        """One of `OK`, `MISALIGNED` and `NOTHING_FOUND`."""
        if self.faults:
            return MISALIGNED
        return OK if self.judged.is_found else NOTHING_FOUND


def check_alignment(
    recording: Recording, sample_rate: float = 120.0, reach: float = 1.0
) -> Alignment:
    """Compare a recording's signal with what its events say was heard.

    Parameters
    ----------
    recording : any; its signal at `sample_rate` is taken from the cache if it's there.
    sample_rate : Hz; that of training saves preparing the signal twice.
    reach : seconds; larger errors than this are not found.

    Raises
    ------
    DataError : the recording can't be read, is too short, or has neither sounds nor words.
    """
    if sample_rate < MIN_RATE:
        raise ValueError(f"sample_rate={sample_rate:g} Hz: {MIN_RATE:g} or more are needed.")
    if not 0.5 <= reach <= 60:
        raise ValueError(f"reach={reach:g} s: choose 0.5 to 60.")
    events = recording.events()
    signal = recording.preprocessed(sample_rate)
    try:
        onsets = events["start"][events["kind"] == "word"].to_numpy(float)
        loudness = sound_loudness(events, signal.n_samples, sample_rate)
        pulses = word_pulses(onsets, signal.n_samples, sample_rate)
        if loudness is None and pulses is None:
            raise DataError(f"no sound files that exist, and fewer than {MIN_WORDS} words.")
        sensors = clean(signal.data, sample_rate)
        how = (sample_rate, reach)
        heard = None if loudness is None else clean(loudness[:, None], sample_rate)
        return Alignment(
            study=recording.study,
            recording=recording.recording_uid,
            subject=recording.subject_uid,
            sensors=signal.sensors,
            n_words=len(onsets),
            duration=signal.duration,
            response=_follow(sensors, loudness, *how),
            words=_follow(sensors, pulses, *how),
            words_in_sound=_follow(heard, pulses, *how),
            sound_copy=find_copy(recording.raw(), loudness, *how),
            evoked=evoked(sensors, onsets, sample_rate, *EVOKED),
        )
    except DataError as error:
        raise DataError(f"{recording}: {error}") from error


def misplaced(profile: LagProfile) -> str | None:
    """Say what is wrong with the place of a response; None if nothing is, or there is none."""
    start = profile.span[0]
    if not profile.is_found or (EARLIEST <= profile.peak <= LATEST and start <= LATEST_START):
        return None
    error = profile.peak - TYPICAL
    direction = "early" if error > 0 else "late"
    return (
        f"starts {1000 * start:.0f} ms and peaks {1000 * profile.peak:.0f} ms after it: events "
        f"seem to be some {abs(1000 * error):.0f} ms too {direction}"
    )


def word_pulses(onsets: np.ndarray, n_samples: int, sample_rate: float) -> np.ndarray | None:
    """A course [T] that is 1 where a word begins; None if there are too few to judge by."""
    if len(onsets) < MIN_WORDS:
        return None
    pulses = np.zeros(n_samples)
    pulses[np.round(onsets * sample_rate).astype(int).clip(0, n_samples - 1)] = 1.0
    return pulses


def find_copy(
    raw: "mne.io.BaseRaw", loudness: np.ndarray | None, sample_rate: float, reach: float
) -> SoundCopy | None:
    """Find the auxiliary channel that follows the sound best, if any does."""
    picks = mne.pick_types(raw.info, meg=False, misc=True, exclude=[])
    if loudness is None or not len(picks):
        return None
    found = []
    levels = channel_loudness(raw, picks, len(loudness), sample_rate)
    for pick, level in zip(picks, levels, strict=True):
        course = clean(level[:, None], sample_rate)
        if len(course):
            profile = lag_profile(course, loudness, sample_rate, reach)
            found.append(SoundCopy(raw.ch_names[pick], profile))
    best = max(found, key=_likeness, default=None)
    return best if best is not None and _likeness(best) > COPY_CORRELATION else None


def table_row(alignment: Alignment) -> dict[str, Any]:
    """One row of the table: lags in ms, empty where there is nothing to measure."""
    judged, copy = alignment.judged, alignment.sound_copy
    return {
        "study": alignment.study,
        "recording": alignment.recording,
        "subject": alignment.subject,
        "minutes": round(alignment.duration / 60, 1),
        "words": alignment.n_words,
        "stimulus": alignment.stimulus,
        **_columns(judged),
        "word_peak_ms": _ms(alignment.words),
        "word_p": None if alignment.words is None else float(f"{alignment.words.p:.1e}"),
        "word_to_sound_ms": _ms(alignment.words_in_sound),
        "sound_channel": "" if copy is None else copy.channel,
        "sound_channel_ms": None if copy is None else _ms(copy.profile),
        "verdict": alignment.verdict,
        "reason": "; ".join(alignment.faults),
    }


def pool_row(alignments: Sequence[Alignment]) -> dict[str, Any]:
    """Row of a study as a whole: what no single recording shows may show in all together."""
    together = pooled([alignment.judged for alignment in alignments])
    fault = misplaced(together)
    found = OK if together.is_found else NOTHING_FOUND
    return {
        "study": alignments[0].study,
        "recording": ALL,
        "stimulus": "/".join(dict.fromkeys(alignment.stimulus for alignment in alignments)),
        **_columns(together),
        "verdict": found if fault is None else MISALIGNED,
        "reason": "" if fault is None else f"the response {fault}",
    }


def _follow(
    sensors: np.ndarray | None, course: np.ndarray | None, sample_rate: float, reach: float
) -> LagProfile | None:
    if sensors is None or course is None:
        return None
    return lag_profile(sensors, course, sample_rate, reach)


def _likeness(copy: SoundCopy) -> float:
    return copy.profile.correlation


def _columns(profile: LagProfile) -> dict[str, Any]:
    return {
        "peak_ms": _ms(profile),
        "start_ms": round(1000 * profile.span[0]),
        "over_chance": round(float(profile.values.max()) / profile.chance, 2),
        "p": float(f"{profile.p:.1e}"),
    }


def _ms(profile: LagProfile | None) -> int | None:
    return None if profile is None else round(1000 * profile.peak)


def _by(seconds: float) -> str:
    return f"{abs(1000 * seconds):.0f} ms {'after' if seconds > 0 else 'before'}"
