"""Speech whose words and phonemes have exact times: a public-domain story told by espeak-ng.

Enters: a length in minutes. Leaves: wav files in the cache and, in seconds of each file, the table of what
is said when. espeak-ng (extra ``demo``) runs in a process of its own, see `bm.studies.espeak`.
"""

import json
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
import soundfile
from scipy.signal import resample_poly

from bm.core.cache import Cache, write_json
from bm.core.hashing import digest
from bm.core.messages import DataError
from bm.events import read_events, write_events

VERSION = 1
STORY = Path(__file__).parent / "texts" / "alice.txt"
PROGRAM = Path(__file__).parent / "espeak.py"
LANGUAGE = "en-us"
WORDS_PER_MINUTE = 165
PAUSE = 0.5
"""Seconds of silence after each sentence."""
SOUND_MINUTES = 4.5
"""The story comes in files of about this length."""
SAMPLE_RATE = 16000
BREAK = "\u200b"
"""Before a word, it keeps espeak-ng from slurring the word into the one before ("of the" would be one)."""


@dataclass(frozen=True)
class Speech:
    """A told story.

    Attributes
    ----------
    folder : where its files are.
    table : rows of kind sound, word and phoneme; ``sound`` is the number of the file, ``start`` counts from
        its beginning. Sounds have ``filepath``, words ``word, word_index, word_sequence, sequence_id``,
        phonemes ``phoneme`` (IPA).
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
        "espeak": _espeak_version(),
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


def _espeak_version() -> str:
    try:
        return version("espeakng-loader")
    except PackageNotFoundError:
        raise ImportError(
            "The simulated study speaks with espeak-ng, which is not installed. Run: pip install bm[demo] "
            "(or: pip install espeakng-loader)"
        ) from None


def _record(sentences: list[str], n_minutes: float, folder: Path) -> None:
    """Speak the sentences, put them together to wav files, and note what is said when."""
    courses, events = _speak(sentences)
    ends = np.cumsum([len(course) / SAMPLE_RATE for course in courses])
    n_told = int(np.searchsorted(ends, 60 * n_minutes)) + 1
    if n_minutes <= 0 or n_told > len(sentences):
        raise ValueError(
            f"n_minutes={n_minutes}: the story lasts {ends[-1] / 60:.1f} minutes; choose 1 to that."
        )
    n_sounds = max(2, round(ends[n_told - 1] / 60 / SOUND_MINUTES))
    borders = np.searchsorted(ends, ends[n_told - 1] * np.arange(n_sounds + 1) / n_sounds)
    borders[0], borders[-1] = 0, n_told
    rows: list[dict[str, Any]] = []
    for sound, (first, last) in enumerate(zip(borders[:-1], borders[1:], strict=True)):
        name = f"alice-{sound + 1:02d}.wav"
        course = np.concatenate(courses[first:last])
        soundfile.write(folder / name, course, SAMPLE_RATE, subtype="PCM_16")
        duration = len(course) / SAMPLE_RATE
        rows.append(
            {"kind": "sound", "sound": sound, "start": 0.0, "duration": duration, "filepath": name}
        )
        begin = 0.0
        for index in range(first, last):
            rows += _rows(
                sentences[index],
                events[index],
                len(courses[index]) / SAMPLE_RATE - PAUSE,
                begin,
                sound,
            )
            begin += len(courses[index]) / SAMPLE_RATE
    order = {"sound": 0, "word": 1, "phoneme": 2}
    table = pd.DataFrame(rows)
    table = table.sort_values(
        ["sound", "start", "kind"], key=lambda c: c.map(order) if c.name == "kind" else c
    )
    write_events(table.reset_index(drop=True), folder / "speech.parquet")


def _speak(sentences: list[str]) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Course of each sentence [T] with its pause, and what espeak-ng reports of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spoken = [f" {BREAK}".join(sentence.split()) for sentence in sentences]
        order = folder / "order.json"
        write_json(order, {"language": LANGUAGE, "rate": WORDS_PER_MINUTE, "sentences": spoken})
        result = subprocess.run(
            [sys.executable, PROGRAM, order, folder], capture_output=True, text=True
        )
        if result.returncode:
            raise DataError(f"espeak-ng failed: {result.stderr.strip()[-500:]}")
        report = json.loads((folder / "events.json").read_text())
        pause = np.zeros(int(PAUSE * SAMPLE_RATE), dtype=np.int16)
        divisor = np.gcd(SAMPLE_RATE, report["sample_rate"])
        up, down = SAMPLE_RATE // divisor, report["sample_rate"] // divisor
        courses = []
        for index in range(len(sentences)):
            course = np.fromfile(folder / f"{index:03d}.pcm", dtype=np.int16).astype(np.float32)
            course = resample_poly(course, up, down).clip(-32768, 32767).astype(np.int16)
            courses.append(np.concatenate([course, pause]))
        return courses, report["sentences"]


def _rows(
    sentence: str, events: dict[str, Any], duration: float, begin: float, sound: int
) -> list[dict[str, Any]]:
    """Word and phoneme rows of a sentence that begins at `begin` in its file."""
    tokens = sentence.split()
    onsets = [time / 1000 for time, _, _ in events["words"]]
    if len(onsets) != len(tokens):
        raise DataError(
            f"espeak-ng reports {len(onsets)} words, not {len(tokens)}, in {sentence!r}."
        )
    names = [phoneme for _, phoneme in events["phonemes"]]
    times = [time / 1000 for time, _ in events["phonemes"]]
    stops = [*times[1:], duration]
    pauses = [time for time, name in zip(times, names, strict=True) if not name]
    where = {"sound": sound, "word_sequence": sentence, "sequence_id": digest(sentence)}
    rows: list[dict[str, Any]] = []
    for index, (token, onset) in enumerate(zip(tokens, onsets, strict=True)):
        silent = min([pause for pause in pauses if pause > onset], default=duration)
        stop = min(onsets[index + 1] if index + 1 < len(tokens) else duration, silent)
        word = {"word": token.strip(",.;:!?"), "word_index": index}
        rows.append(
            {"kind": "word", "start": begin + onset, "duration": stop - onset, **word, **where}
        )
    for name, time, stop in zip(names, times, stops, strict=True):
        if name and stop > time:
            rows.append(
                {
                    "kind": "phoneme",
                    "start": begin + time,
                    "duration": stop - time,
                    "phoneme": name,
                    **where,
                }
            )
    return rows
