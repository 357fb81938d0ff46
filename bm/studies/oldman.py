"""One run of broderick2019's audiobook: what is heard when, and in which sentence.

Enters: a sound, its alignment by Gentle, its text. Leaves: an event table, in seconds of the sound.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bm.core.messages import DataError
from bm.studies.expected import compare
from bm.studies.formats.files import read_text
from bm.studies.formats.gentle import Alignment, places_fit, read_alignment
from bm.studies.stimuli import SoundLengths
from bm.studies.transcripts import (
    sentences_as_published,
    sentences_by_place,
    sentences_by_words,
)

logger = logging.getLogger(__name__)

MIN_WORDS = 450
"""Words of each run of the study, at the least."""
TEXT_ENCODINGS = ("utf-8-sig", "cp1252")


@dataclass(frozen=True)
class Run:
    """The files of one stretch of the audiobook.

    Attributes
    ----------
    sound, alignment, text : paths.
    """

    sound: Path
    alignment: Path
    text: Path

    @classmethod
    def of(cls, folder: Path, number: int) -> "Run":
        """Files of a run, by their names in the folder of stimuli."""
        return cls(
            folder / f"audio{number}.wav",
            folder / f"align{number}.json",
            folder / f"oldman_run{number}.txt",
        )


def heard_events(run: Run, sounds: SoundLengths, model: str | None) -> pd.DataFrame:
    """The sound, its words and phonemes.

    Parameters
    ----------
    run : the files.
    sounds : how long they last.
    model : spaCy's model for sentences as published; None: by the punctuation of the text.

    Raises
    ------
    DataError : a file is missing or broken, or is another run's.
    """
    alignment = read_alignment(run.alignment)
    if model is None:
        events = _with_sentences(alignment, *_sentences(alignment, run))
    else:
        events = _as_published(alignment, run, model)
    spoken = float((events["start"] + events["duration"]).max())
    (duration,) = sounds.of([run.sound], [spoken], run.alignment.name)
    sound = {"kind": "sound", "start": 0.0, "duration": duration, "filepath": str(run.sound)}
    table = pd.concat([pd.DataFrame([{**sound, "offset": 0.0}]), events.drop(columns="of")])
    table["modality"], table["language"] = "audio", "en"
    return table.sort_values("start", kind="stable", ignore_index=True)


def _sentences(alignment: Alignment, run: Run) -> tuple[np.ndarray, list[str]]:
    """Sentence of each word, by its place in the transcript or, if that is unknown, in the text."""
    if places_fit(alignment):
        return sentences_by_place(alignment.words["first"].tolist(), alignment.transcript)
    logger.info("%s doesn't tell the places of words: compared with the text.", run.alignment)
    text = read_text(run.text, TEXT_ENCODINGS)
    try:
        return sentences_by_words(alignment.words["word"].tolist(), text)
    except ValueError as error:
        raise _other_text(run, error) from error


def _with_sentences(
    alignment: Alignment, numbers: np.ndarray, texts: Sequence[str]
) -> pd.DataFrame:
    """Words and phonemes, those of words without a sentence (-1) left out."""
    words = alignment.words.assign(kind="word", sentence=numbers)
    words["of"] = np.arange(len(words))
    words = words[words["sentence"] >= 0]
    sentences = words.groupby("sentence")
    words["word_index"] = sentences.cumcount().astype(float)
    words["word_sequence"] = sentences["word"].transform(" ".join)
    phonemes = alignment.phonemes.assign(kind="phoneme")
    phonemes["sentence"] = phonemes["of"].map(words.set_index("of")["sentence"])
    events = pd.concat([words, phonemes[phonemes["sentence"].notna()]])
    events["sequence_id"] = events["sentence"].astype(int).astype(str)
    events["sequence_uid"] = [texts[int(number)] for number in events["sentence"]]
    events["condition"] = "sentence"
    return events.drop(columns=["first", "last", "sentence"])


def _as_published(alignment: Alignment, run: Run, model: str) -> pd.DataFrame:
    """Words and phonemes with spaCy's sentences.

    Words before the first and after the last one that is in the text have none and are left out:
    the published code stops at them. The phonemes from the last such word on have none, so that
    their block is known by its words.
    """
    words = alignment.words["word"].tolist()
    text = read_text(run.text, TEXT_ENCODINGS)
    try:
        numbers, is_match, texts = sentences_as_published(words, text, model)
    except ValueError as error:
        raise _other_text(run, error) from error
    cause = "the text is not that of the sound"
    expected, found = (MIN_WORDS, np.inf), int(is_match.sum())
    compare(str(run.text), {"matching words": expected}, {"matching words": found}, cause)
    n_left_out = int((numbers < 0).sum())
    if n_left_out:
        logger.warning(
            "%s: %d word(s) before the first or after the last one of the text: left out.",
            run.alignment,
            n_left_out,
        )
    events = _with_sentences(alignment, numbers, texts)
    last_match = int(np.flatnonzero(is_match)[-1])
    unknown = (events["kind"] == "phoneme") & (events["of"] >= last_match)
    return events.assign(sequence_uid=events["sequence_uid"].mask(unknown))


def _other_text(run: Run, error: ValueError) -> DataError:
    return DataError(
        f"{run.text} is not the text of {run.alignment}: {error}. Is it another run's?"
    )
