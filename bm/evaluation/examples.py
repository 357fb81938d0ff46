"""Examples for the report: which segments to show, and in words what was heard in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bm.core.hashing import text_id
from bm.evaluation.retrieval import Retrieval

N_GUESSES = 5


@dataclass(frozen=True)
class Heard:
    """Words that begin within a window.

    Attributes
    ----------
    before, word, after : words before the anchor, the anchor, and those after it.
    sentence : the sentence of the anchor; empty if unknown.
    """

    before: str = ""
    word: str = ""
    after: str = ""
    sentence: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.before, self.word, self.after))) or "(no words)"


@dataclass(frozen=True)
class Guess:
    """One of the best candidates of an example.

    Attributes
    ----------
    place : 1 is best.
    heard : what is heard in the candidate.
    probability : by softmax over all candidates.
    is_true : whether it is what the listener heard.
    """

    place: int
    heard: Heard
    probability: float
    is_true: bool


@dataclass(frozen=True)
class Example:
    """A test segment and its best candidates.

    Attributes
    ----------
    subject : name.
    time : of the anchor, in seconds of the recording.
    rank : candidates above the true one.
    heard : what the listener heard.
    guesses : the best candidates, and the true one if it isn't among them.
    """

    subject: str
    time: float
    rank: float
    heard: Heard
    guesses: list[Guess]

    @property
    def place(self) -> int:
        """Place of the truth, 1 is best."""
        return int(np.ceil(self.rank)) + 1


def words_in_windows(
    table: pd.DataFrame, events: Sequence[pd.DataFrame], tmin: float, tmax: float
) -> list[Heard]:
    """Words that begin within each window.

    Parameters
    ----------
    table : one row per window: ``recording``, ``time`` and ``event`` of the anchor, and its labels.
    events : event table of each recording.
    tmin, tmax : the window, in seconds from the anchor.
    """
    heard = [Heard()] * len(table)
    for index, rows in table.reset_index(drop=True).groupby("recording"):
        words = events[int(str(index))]
        words = words[words["kind"] == "word"].sort_values("start", kind="stable")
        if not len(words):
            continue
        onsets = words["start"].to_numpy(float)
        texts = words["word"].astype(str).to_numpy(str)
        numbers = words.index.to_numpy()
        for place, row in rows.iterrows():
            first, last = np.searchsorted(onsets, [row["time"] + tmin, row["time"] + tmax])
            anchor = numbers[first:last] == row["event"]
            cut = first + int(anchor.argmax()) if anchor.any() else last
            heard[int(str(place))] = Heard(
                " ".join(texts[first:cut]),
                texts[cut] if anchor.any() else "",
                " ".join(texts[cut + 1 : last]),
                _text(row.get("word_sequence")),
            )
    return heard


def choose_examples(
    retrieval: Retrieval, heard: Sequence[Heard], subjects: Sequence[str], n: int = 8, k: int = 10
) -> list[Example]:
    """Segments to show, half of them among the best `k`, half not; the same ones whenever asked.

    Parameters
    ----------
    retrieval : outcome for each segment.
    heard : words of each candidate.
    subjects : names by index.
    n : number of examples; fewer if there aren't as many of a kind.
    """
    table = retrieval.table
    order = np.argsort([text_id("example", row) for row in table["row"]])
    drawn = table.iloc[order].drop_duplicates("candidate")
    is_hit = drawn["rank"] < k
    chosen = pd.concat([drawn[is_hit][: n // 2], drawn[~is_hit][: n // 2]])
    return [_example(row, heard, subjects) for _, row in chosen.iterrows()]


def _example(row: Any, heard: Sequence[Heard], subjects: Sequence[str]) -> Example:
    truth = int(row["candidate"])
    best = list(zip(row["best"], row["best_probability"], strict=True))[:N_GUESSES]
    guesses = [
        Guess(place, heard[column], probability, column == truth)
        for place, (column, probability) in enumerate(best, start=1)
    ]
    example = Example(
        subjects[int(row["subject"])], row["time"], row["rank"], heard[truth], guesses
    )
    if not any(guess.is_true for guess in guesses):
        guesses.append(Guess(example.place, heard[truth], row["probability"], True))
    return example


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
