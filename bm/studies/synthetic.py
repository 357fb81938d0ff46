"""The built-in study: simulated listeners of a story told by a machine. None of it is real data.

Enters: a few numbers. Leaves: recordings like those of a real study (FIF files, events), of which
everything is known: the clean response, the statistics of the noise, and so how well the best
decoder can do (`bm.evaluation.ceiling`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import mne
import numpy as np
import pandas as pd
import scipy  # its parts are imported when they are used: transforms take long

from bm.core.cache import Cache
from bm.core.messages import check_choice
from bm.recordings import Recording
from bm.studies.base import Study, register
from bm.studies.simulated.artefacts import add_artefacts, bad_sensors
from bm.studies.simulated.experiment import Experiment
from bm.studies.simulated.headmodel import MODALITIES
from bm.studies.simulated.simulation import SAMPLE_RATE, Listener, generator

RAW = "simulated_raw.fif"
LEAD_IN = (7.0, 12.0)
"""Silence before the story, in seconds. More than the 6 of a merged block, so that the first block
holds the same sentence in every recording."""
GAP = 3.0
"""Silence between two sounds, and after the last, in seconds."""
RESOLUTION = 1 / 12
"""Step of the 16-bit converter, as a share of the ordinary amplitude."""
LARGEST = 32767.0
"""In steps, what the converter can express."""


class SyntheticRecording(Recording):
    """A simulated sitting.

    Parameters
    ----------
    study : name of the study.
    experiment : story and listeners.
    subject, session : numbers from 0.
    artefacts : whether blinks, heartbeats, bad sensors and jumps are added.
    """

    def __init__(
        self, study: str, experiment: Experiment, subject: int, session: int, artefacts: bool
    ):
        super().__init__(
            study,
            f"simulated-{subject + 1:02d}",
            f"simulated-{subject + 1:02d}-session-{session + 1}",
            experiment.cache,
            session=str(session + 1),
        )
        self.experiment = experiment
        self.subject = subject
        self.artefacts = artefacts
        self._names = (experiment.seed, experiment.modality, subject, session)
        lead_in = generator("lead-in", *self._names).uniform(*LEAD_IN)
        self.lead_in = round(lead_in * SAMPLE_RATE) / SAMPLE_RATE

    @property
    def options(self) -> dict[str, Any]:
        """All that decides the signal and the events."""
        return {
            **self.experiment.options,
            "artefacts": self.artefacts,
            "recording": self.recording_uid,
        }

    @property
    def listener(self) -> Listener:
        """Who is listening."""
        return self.experiment.listener(self.subject)

    @property
    def sound_starts(self) -> np.ndarray:
        """First sample of each sound, at native rate."""
        return self._sound_borders[:-1]

    @property
    def n_samples(self) -> int:
        """Length at native rate."""
        return int(self._sound_borders[-1])

    @property
    def _sound_borders(self) -> np.ndarray:
        lengths = np.ceil((np.array(self.experiment.speech.durations) + GAP) * SAMPLE_RATE)
        return round(self.lead_in * SAMPLE_RATE) + np.cumsum([0, *lengths.astype(int)])

    def load_raw(self) -> "mne.io.BaseRaw":
        """Read the simulated signal, which is made when it's first asked for."""
        folder = self.cache.entry("simulated", self.options, self._write_raw, self._label)
        return mne.io.read_raw_fif(folder / RAW, preload=False, verbose="error")

    def load_events(self) -> pd.DataFrame:
        """Sounds, words and phonemes at their exact times."""
        events = self.experiment.speech.table.copy()
        starts = self.sound_starts / SAMPLE_RATE
        events["start"] += starts[events["sound"].to_numpy(int)]
        is_sound = events["kind"] == "sound"
        events["offset"] = np.where(is_sound, 0.0, np.nan)
        events["condition"] = pd.Series("sentence", events.index).mask(is_sound)
        events["modality"] = "audio"
        events["language"] = "en"
        return events.drop(columns="sound")

    def source_files(self) -> Sequence[Path]:
        """The story's files: the signal follows from them and the options."""
        return self.experiment.speech.sounds

    def clean_response(self) -> np.ndarray:
        """What the sensors would record of the response alone, [T, C] float32, in T or V."""
        listener, borders = self.listener, self._sound_borders
        response = np.zeros((self.n_samples, len(listener.info["ch_names"])), np.float32)
        for drive, start, stop in zip(
            self.experiment.drives, borders[:-1], borders[1:], strict=True
        ):
            rest = stop - start - len(drive)  # silence, into which the response goes on
            response[start:stop] = listener.respond(np.pad(drive, ((0, rest), (0, 0))))
        return response

    def without_artefacts(self) -> np.ndarray:
        """Clean response, brain noise and sensor noise, [T, C] float32 at native rate."""
        recorded = self.listener.noise(self.n_samples, generator("noise", *self._names))
        recorded += self.clean_response()
        return recorded

    def bad_sensors(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the noisy and the flat sensors."""
        if not self.artefacts:
            return np.empty(0, int), np.empty(0, int)
        return bad_sensors(self.listener.fields.shape[1], generator("bad sensors", *self._names))

    def signal_correlation(self, sample_rate: float = 120.0) -> float:
        """Mean over sensors of the absolute correlation of clean response and recording.

        Without the artefacts, with which it would be lower still; from the first sound to the end;
        of all that a recording at `sample_rate` holds, that is up to half of it in Hz.
        """
        begin = int(self.sound_starts[0])
        clean, recorded = (
            _spectrum(course[begin:], sample_rate / 2)
            for course in (self.clean_response(), self.without_artefacts())
        )
        norms = np.linalg.norm(clean, axis=1) * np.linalg.norm(recorded, axis=1)
        if not norms.all():  # snr is 0
            return 0.0
        return float(np.abs((clean * recorded.conj()).real.sum(axis=1) / norms).mean())

    def _write_raw(self, folder: Path) -> None:
        listener = self.listener
        data = self.without_artefacts()
        level = listener.noise_level
        if self.artefacts:
            rng = generator("artefacts", *self._names)
            add_artefacts(data, listener.info, level, *self.bad_sensors(), rng)
        step = RESOLUTION * level
        data += np.copysign(np.float32(step / 2), data)  # MNE cuts off what it can't write
        np.clip(data, -LARGEST * step, LARGEST * step, out=data)  # as an amplifier does
        info = listener.info.copy()
        for channel in info["chs"]:
            channel["cal"] = step
        modality = self.experiment.modality
        info["description"] = f"simulated {modality} of a simulated listener; not real data"
        raw = mne.io.RawArray(data.T, info, verbose="error")
        raw.save(folder / RAW, fmt="short", verbose="error")


def _spectrum(course: np.ndarray, highest: float) -> np.ndarray:
    """[C, F] spectrum of [T, C], from above 0 to the highest frequency in Hz."""
    centred = np.ascontiguousarray((course - course.mean(axis=0)).T)
    n_fft = scipy.fft.next_fast_len(len(course), real=True)
    spectrum = scipy.fft.rfft(centred, n_fft, axis=1)
    return spectrum[:, 1 : np.searchsorted(scipy.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE), highest)]


@register
class Synthetic(Study):
    """Simulated listeners of a story; the response to the speech is planted and known.

    Parameters
    ----------
    n_subjects, n_sessions : how many listeners, and how often each hears the story (the noise and
        the silence before the story differ).
    modality : "meg" (102 magnetometers) or "eeg" (64 electrodes).
    n_sensors : use only that many of the sensors, evenly spread; None: all.
    snr : root mean square of the clean response over that of brain and sensor noise, over all
        sensors. 0: nothing to decode.
    n_minutes : length of the story, at most about 22.
    artefacts : whether blinks, heartbeats, bad sensors and huge jumps are added.
    seed : another number makes other listeners and other noise.
    cache : where wav files and signals are kept.
    """

    name: ClassVar[str] = "synthetic"

    def __init__(
        self,
        n_subjects: int = 6,
        n_sessions: int = 2,
        modality: str = "meg",
        n_sensors: int | None = None,
        snr: float = 0.07,
        n_minutes: float = 22.0,
        artefacts: bool = True,
        seed: int = 0,
        *,
        cache: Cache,
    ):
        super().__init__(cache=cache)
        check_choice("modality", modality, MODALITIES)
        for option, value in (("n_subjects", n_subjects), ("n_sessions", n_sessions)):
            if value < 1:
                raise ValueError(f"{option}={value}: a simulated study needs at least 1.")
        if snr < 0:
            raise ValueError(f"snr={snr}: must be 0 (no response) or more.")
        if n_minutes < 0.5:
            raise ValueError(f"n_minutes={n_minutes}: a story lasts at least half a minute.")
        n_all = MODALITIES[modality]
        if n_sensors is not None and not 4 <= n_sensors <= n_all:
            raise ValueError(f"n_sensors={n_sensors}: choose 4 to {n_all} for {modality!r}.")
        self.n_subjects = n_subjects
        self.n_sessions = n_sessions
        self.artefacts = artefacts
        self.experiment = Experiment(cache, modality, n_sensors, float(snr), seed, float(n_minutes))

    def recordings(self) -> Iterator[SyntheticRecording]:
        """Subject by subject, session by session.

        Raises
        ------
        ImportError : espeak-ng isn't installed.
        ValueError : the story isn't as long as asked for.
        """
        _ = self.experiment.speech  # told first: what is wrong with it is better said here
        for subject in range(self.n_subjects):
            for session in range(self.n_sessions):
                yield SyntheticRecording(
                    self.name, self.experiment, subject, session, self.artefacts
                )


@register
class Fake(Synthetic):
    """A tiny `Synthetic` for tests: two listeners, one session, few sensors, three minutes.

    Same parameters, with other defaults; the response is stronger.
    """

    name: ClassVar[str] = "fake"

    def __init__(
        self,
        n_subjects: int = 2,
        n_sessions: int = 1,
        modality: str = "meg",
        n_sensors: int | None = 16,
        snr: float = 0.3,
        n_minutes: float = 3.0,
        artefacts: bool = True,
        seed: int = 0,
        *,
        cache: Cache,
    ):
        super().__init__(
            n_subjects,
            n_sessions,
            modality,
            n_sensors,
            snr,
            n_minutes,
            artefacts,
            seed,
            cache=cache,
        )
