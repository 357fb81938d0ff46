"""What is heard in each split, and whether two splits hear the same.

Enters: splits. Leaves: stretches of stimulus with the recording and moment where they are heard.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bm.core.cache import Cache
from bm.evaluation.fingerprints import Landmarks, join, landmarks, shared_sounds
from bm.recordings.sound import sound_digest
from bm.segments import Prepared, Splits

TOLERANCE = 0.1
"""Seconds at the border of two blocks that both may hear, as in `bm.events.sounds`."""


@dataclass(frozen=True)
class Heard:
    """A stretch of sound that segments of a split cover.

    Attributes
    ----------
    content : digest of the file, the same for copies under any name.
    begin, end : seconds in the file.
    path : the file.
    recording, time : who hears it first, and when, in seconds of the recording.
    """

    content: str
    begin: float
    end: float
    path: Path
    recording: int
    time: float


@dataclass(frozen=True)
class Shared:
    """A stretch of stimulus in two splits.

    Attributes
    ----------
    what : file and seconds, or the sentence.
    first, second : recording and moment in either split.
    """

    what: str
    first: tuple[int, float]
    second: tuple[int, float]

    def describe(self, recordings: list[str], one: str, other: str) -> str:
        """In words, with the names of the splits."""
        places = [
            f"{recordings[recording]} at {time:.2f} s ({split})"
            for (recording, time), split in ((self.first, one), (self.second, other))
        ]
        return f"{self.what}, heard by {' and '.join(places)}"


def heard_sounds(splits: Splits) -> dict[str, list[Heard]]:
    """Stretches of sound that the segments of each split cover, each distinct one once."""
    found: dict[str, list[Heard]] = {}
    for split, dataset in splits.datasets.items():
        distinct: dict[tuple[str, float, float], Heard] = {}
        for recording, rows in dataset.table.groupby("recording"):
            index = int(str(recording))
            item = splits.prepared[index]
            begin = np.sort(rows["first"].to_numpy(np.int64)) / item.signal.sample_rate
            length = (dataset.n_times - 1) / item.signal.sample_rate
            for stretch in _stretches(item, index, _merged(begin, begin + length)):
                key = stretch.content, round(stretch.begin, 2), round(stretch.end, 2)
                distinct.setdefault(key, stretch)
        found[split] = list(distinct.values())
    return found


def find_shared_sound(one: list[Heard], other: list[Heard], cache: Cache | None) -> list[Shared]:
    """Stretches in both lists: of one file by their place in it, of different files by ear."""
    by_content = defaultdict(list)
    for stretch in one:
        by_content[stretch.content].append(stretch)
    found = []
    for stretch in other:
        for known in by_content[stretch.content]:
            begin, end = max(known.begin, stretch.begin), min(known.end, stretch.end)
            if end - begin > TOLERANCE:
                what = f"{stretch.path.name} from {begin:.2f} to {end:.2f} s"
                first, second = (
                    (place.recording, place.time + begin - place.begin)
                    for place in (known, stretch)
                )
                found.append(Shared(what, first, second))
    return found or _by_ear(one, other, cache)


def find_shared_text(splits: Splits, one: str, other: str, min_words: int) -> list[Shared]:
    """Sentences that anchor segments of both splits, in recordings without any sound."""
    places: dict[str, dict[str, tuple[int, float]]] = {}
    silent = {
        index
        for index, item in enumerate(splits.prepared)
        if not (item.events["kind"] == "sound").any()
    }
    for split in (one, other):
        places[split] = {}
        for index in silent & set(splits.datasets[split].table["recording"]):
            for text, time in _sentences(splits.prepared[index], split):
                if len(text.split()) >= min_words:
                    places[split].setdefault(text, (index, time))
    both = places[one].keys() & places[other].keys()
    return [
        Shared(f"the sentence {text[:60]!r}", places[one][text], places[other][text])
        for text in sorted(both)
    ]


def _by_ear(one: list[Heard], other: list[Heard], cache: Cache | None) -> list[Shared]:
    """Stretches that sound alike though they stand in other files or elsewhere in the same."""
    numbers = {
        content: number
        for number, content in enumerate(sorted({item.content for item in [*one, *other]}))
    }
    known: dict[str, Landmarks] = {}
    for stretch in [*one, *other]:
        if stretch.content not in known:
            known[stretch.content] = landmarks(stretch.path, cache)
    groups = []
    for stretches in (one, other):
        parts, owners = [], []
        for index, stretch in enumerate(stretches):
            marks = known[stretch.content]
            inside = (marks.times >= stretch.begin) & (marks.times <= stretch.end)
            parts.append(Landmarks(marks.times[inside], marks.patches[inside]))
            owners.append(np.full(inside.sum(), index))
        if not parts:
            return []
        owner = np.concatenate(owners)
        file = np.array([numbers[stretches[index].content] for index in owner], dtype=int)
        groups.append((join(parts), file, owner))
    (first, first_file, first_owner), (second, second_file, second_owner) = groups
    found = []
    for match in shared_sounds(first, second, first_file, second_file):
        a, b = one[first_owner[match.first]], other[second_owner[match.second]]
        at_a, at_b = first.times[match.first], second.times[match.second]
        what = (
            f"{match.span:.1f} s that sound the same in {a.path.name} from {at_a:.2f} s and in "
            f"{b.path.name} from {at_b:.2f} s"
        )
        places = (a.recording, a.time + at_a - a.begin), (b.recording, b.time + at_b - b.begin)
        found.append(Shared(what, *places))
    return found


def _stretches(item: Prepared, index: int, covered: list[tuple[float, float]]) -> list[Heard]:
    """Sound within covered stretches of a recording, both in its seconds."""
    begins = np.array([begin for begin, _ in covered])
    ends = np.array([end for _, end in covered])
    found = []
    sound: Any  # a named tuple of the table's columns
    for sound in item.events[item.events["kind"] == "sound"].itertuples():
        begin = np.maximum(begins, sound.start)
        end = np.minimum(ends, sound.start + sound.duration)
        for place in np.flatnonzero(end - begin > TOLERANCE):
            in_file = begin[place] - sound.start + sound.offset
            found.append(
                Heard(
                    sound_digest(sound.filepath),
                    float(in_file),
                    float(in_file + end[place] - begin[place]),
                    Path(sound.filepath),
                    index,
                    float(begin[place]),
                )
            )
    return found


def _merged(begins: np.ndarray, ends: np.ndarray) -> list[tuple[float, float]]:
    """Union of intervals, sorted by their begin."""
    furthest = np.maximum.accumulate(ends)
    gap = np.flatnonzero(begins[1:] > furthest[:-1]) + 1
    return list(zip(begins[[0, *gap]], furthest[[*(gap - 1), len(ends) - 1]], strict=True))


def _sentences(item: Prepared, split: str) -> list[tuple[str, float]]:
    """Sentences that begin in the blocks of a split, and when."""
    words = item.events[item.events["kind"] == "word"]
    if "word_sequence" not in words or "word_index" not in words:
        return []
    firsts = words[(words["word_index"] == 0) & words["word_sequence"].notna()]
    blocks: pd.DataFrame = item.blocks[item.blocks["split"] == split]
    starts = blocks["start"].to_numpy(float)
    stops = starts + blocks["duration"].to_numpy(float)
    onsets = firsts["start"].to_numpy(float)[:, None]
    within = ((onsets >= starts) & (onsets < stops)).any(axis=1)
    chosen = firsts[within]
    return list(
        zip(chosen["word_sequence"].astype(str), chosen["start"].astype(float), strict=True)
    )
