"""Stimuli of MOUS: 360 Dutch sentences and as many word lists, as text and as sound.

Enters: the folder of the dataset. Leaves: the number of an item by its text, and the sound file,
the words and the phonemes of one by the number of its file.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import pandas as pd

from bm.core.hashing import digest, file_fingerprint
from bm.core.messages import DataError, did_you_mean
from bm.studies.formats.files import read_text
from bm.studies.formats.textgrid import Interval, read_textgrid
from bm.studies.stimuli import SoundLengths

TEXTS = "stimuli/stimuli.txt"
SOUNDS = "stimuli/audio_files"
ALIGNMENTS = "derivatives/phonemes"
FILE_STEM = "EQ_Ramp_Int2_Int1LPF{:03d}"
WORDS, PHONEMES = "ORT-MAU", "MAU"
"""Tiers of WebMAUS."""
N_TELLING = 45
"""First characters of an item that no other has: lists lack their last word in some logs."""
ITEM = re.compile(r"\s*(\d+)\s+(\S.*?)\s*")
PUNCTUATION = re.compile(r"[^\w\s'-]")
NO_SPEECH = re.compile(r"<.*>|")
"""Labels of pauses ("<p:>") and noise, and none at all."""


class Stimuli:
    """Sounds and texts in the folder `root` of the dataset."""

    def __init__(self, root: Path):
        self.root = root
        self.lengths = SoundLengths()
        self._spoken: dict[int, pd.DataFrame] = {}
        self._sounds = _listing(root / SOUNDS)
        self._alignments = _listing(root / ALIGNMENTS)

    @cached_property
    def digest(self) -> str:
        """Changes when a file does."""
        files = [*self._sounds.values(), *self._alignments.values()]
        texts = self.root / TEXTS
        files += [texts] if texts.exists() else []
        return digest(file_fingerprint(files))

    @cached_property
    def items(self) -> dict[int, str]:
        """Text by number, as in stimuli.txt.

        Raises
        ------
        DataError : the file is missing or not UTF-8, a line is no number with a text, or a number
            or text appears twice.
        """
        path = self.root / TEXTS
        items: dict[int, str] = {}
        begins: dict[str, int] = {}
        for line, content in enumerate(read_text(path).split("\n"), start=1):
            if not content.strip():
                continue
            match = ITEM.fullmatch(content)
            if match is None or not int(match[1]):
                raise DataError(
                    f"{path}, line {line}: {content[:40]!r} is no item: a number from 1 on, a "
                    "blank, and a text."
                )
            number, begin = int(match[1]), match[2].lower()[:N_TELLING]
            if number in items or begin in begins:
                other = f"number {number}" if number in items else f"item {begins[begin]}"
                what = "its number" if number in items else f"its first {N_TELLING} characters"
                raise DataError(f"{path}, line {line}: {other} has {what} already.")
            items[number], begins[begin] = match[2], number
        return items

    def number(self, text: str) -> int | None:
        """Number of the item with that text; None if there is none, or more than one.

        Case and punctuation don't matter, and the last words may be missing.
        """
        wanted = _plain(text)
        if not wanted:
            return None
        if wanted in self._by_text:
            return self._by_text[wanted]
        close = [
            number
            for known, number in self._by_text.items()
            if known.startswith(f"{wanted} ") or _same_beginning(known, wanted)
        ]
        return close[0] if len(close) == 1 else None

    def number_as_published(self, text: str) -> int:
        """Number of the item with the same first 45 characters, in lower case.

        Raises
        ------
        DataError : there is none.
        """
        begin = text.lower()[:N_TELLING]
        if begin not in self._by_beginning:
            raise DataError(
                f"{self.root / TEXTS} has no item that begins with {begin!r}. With faithful=False "
                "items are told more tolerantly."
            )
        return self._by_beginning[begin]

    def sound(self, number: int) -> Path:
        """Sound file of that number; it may not be there."""
        name = f"{FILE_STEM.format(number)}.wav"
        return self._sounds.get(name.lower(), self.root / SOUNDS / name)

    def alignment(self, number: int) -> Path:
        """TextGrid of that sound file; it may not be there."""
        name = f"{FILE_STEM.format(number)}.TextGrid"
        return self._alignments.get(name.lower(), self.root / ALIGNMENTS / name)

    def spoken(self, number: int) -> pd.DataFrame:
        """Words and phonemes of a sound file, in seconds of it; empty without a TextGrid.

        Each phoneme is after the word that it is part of, even if both begin at once.
        """
        if number not in self._spoken:
            self._spoken[number] = self._read_spoken(number)
        return self._spoken[number]

    @cached_property
    def _by_text(self) -> dict[str, int]:
        return {_plain(text): number for number, text in self.items.items()}

    @cached_property
    def _by_beginning(self) -> dict[str, int]:
        return {text.lower()[:N_TELLING]: number for number, text in self.items.items()}

    def _read_spoken(self, number: int) -> pd.DataFrame:
        path = self.alignment(number)
        columns = ["kind", "start", "duration", "word", "phoneme", "word_index"]
        if not path.exists():
            return pd.DataFrame({name: [] for name in columns})
        tiers = read_textgrid(path)
        for tier in (WORDS, PHONEMES):
            if tier not in tiers:
                raise DataError(f"{path}: no tier {tier!r}. {did_you_mean(tier, tiers)}")
        words = _speech(tiers[WORDS])
        rows: list[tuple[str, float, float, str | None, str | None, float | None]]
        rows = [
            ("word", word.start, word.stop - word.start, word.text, None, float(index))
            for index, word in enumerate(words)
        ]
        rows += [
            ("phoneme", each.start, each.stop - each.start, None, each.text, None)
            for each in _speech(tiers[PHONEMES])
        ]
        return pd.DataFrame(rows, columns=columns).sort_values("start", kind="stable")


def _speech(intervals: Iterable[Interval]) -> list[Interval]:
    return [each for each in intervals if not NO_SPEECH.fullmatch(each.text)]


def _plain(text: str) -> str:
    return " ".join(PUNCTUATION.sub(" ", text).lower().split())


def _same_beginning(first: str, second: str) -> bool:
    return len(second) >= N_TELLING and first[:N_TELLING] == second[:N_TELLING]


def _listing(folder: Path) -> dict[str, Path]:
    """Files by name in lower case: they keep their names on systems that don't tell cases apart."""
    if not folder.is_dir():
        return {}
    return {file.name.lower(): file for file in sorted(folder.iterdir()) if file.is_file()}
