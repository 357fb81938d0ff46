"""Sentences of a text, and which of them each word of an alignment belongs to.

Enters: words in the order of the text, and the text. Leaves: the number of each word's sentence,
and the sentences.
"""

import importlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "rev", "capt", "e.g", "i.e")
END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)")
NEW_PARAGRAPH = re.compile(r"\n\s*\n")
OPENING = "\"'“‘([-— \t\r\n"
TOKEN = re.compile(r"\w+(?:['’]\w+)*")


def split_sentences(text: str) -> list[int]:
    """Places in an English text, in characters, at which its sentences begin.

    A sentence ends with a full stop, question or exclamation mark and the quotation marks after it,
    if what follows begins with a capital letter or a digit; or with a paragraph. It doesn't end
    after a title ("Mr.") or an initial.
    """
    ends = {0} | {match.end() for match in NEW_PARAGRAPH.finditer(text)}
    ends |= {match.end() for match in END.finditer(text) if _is_end(text, match)}
    begins = {end + len(text[end:]) - len(text[end:].lstrip()) for end in ends}
    return sorted(begin for begin in begins if begin < len(text))


def sentences_by_place(first: Sequence[float], text: str) -> tuple[np.ndarray, list[str]]:
    """Sentences of words that begin at the characters `first` of a text."""
    begins = split_sentences(text)
    numbers = np.searchsorted(begins, first, side="right") - 1
    return np.maximum(numbers, 0), _texts(text, begins)


def sentences_by_words(words: Sequence[str], text: str) -> tuple[np.ndarray, list[str]]:
    """Sentences of words that are compared with those of a text.

    A word that is not in the text belongs to the sentence of the one before, or of the first that
    is.

    Raises
    ------
    ValueError : the text is another one.
    """
    matches = list(TOKEN.finditer(text))
    places, of_text = match_words(
        [_plain(word) for word in words], [_plain(match.group()) for match in matches]
    )
    _check_same(words, len(places))
    found = [matches[index].start() for index in of_text]
    latest = np.searchsorted(places, np.arange(len(words)), side="right") - 1
    return sentences_by_place([found[index] for index in np.maximum(latest, 0)], text)


def sentences_as_published(
    words: Sequence[str], text: str, model: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Sentences by spaCy, the way of the published code.

    Returns
    -------
    numbers : sentence of each word; that of the word before for those that match no token of the
        text, -1 for those before the first and after the last match.
    is_match : whether each word matches a token.
    texts : the sentences as they stand in the text.

    Raises
    ------
    ImportError : spaCy, or its model, is not installed; the message says how to.
    ValueError : the text is another one.
    """
    texts, tokens, sentence_of = _analysed(text, model)
    places, of_text = match_words([word.lower() for word in words], tokens)
    _check_same(words, len(places))
    latest = np.searchsorted(places, np.arange(len(words)), side="right") - 1
    numbers = np.array([sentence_of[of_text[index]] for index in latest])
    numbers[latest < 0] = -1
    numbers[places[-1] + 1 :] = -1
    is_match = np.isin(np.arange(len(words)), places)
    return numbers, is_match, texts


def match_words(first: Sequence[str], second: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Places [M] in both lists of the words that the least number of edits leaves as they are.

    Edits insert, delete or replace a word (Levenshtein 1966).
    """
    n_first, n_second = len(first), len(second)
    codes: dict[str, int] = {}
    a, b = (
        np.array([codes.setdefault(word, len(codes)) for word in words], dtype=int)
        for words in (first, second)
    )
    steps = np.arange(n_second + 1)
    cost = np.empty((n_first + 1, n_second + 1), dtype=int)
    cost[0] = steps
    for row in range(n_first):
        best = np.append(row + 1, np.minimum(cost[row, 1:] + 1, cost[row, :-1] + (b != a[row])))
        cost[row + 1] = np.minimum.accumulate(best - steps) + steps
    pairs = []
    i, j = n_first, n_second
    while i and j:
        if a[i - 1] == b[j - 1] and cost[i, j] == cost[i - 1, j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif cost[i, j] == cost[i - 1, j - 1] + 1:
            i, j = i - 1, j - 1
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    found = np.array(pairs[::-1], dtype=int).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _check_same(words: Sequence[str], n_matches: int) -> None:
    if n_matches < len(words) / 2:
        raise ValueError(f"only {n_matches} of {len(words)} words are in the text, in their order")


def _texts(text: str, begins: Sequence[int]) -> list[str]:
    """Sentences, each on one line, whatever the line breaks of the text."""
    spans = zip(begins, [*begins[1:], len(text)], strict=True)
    return [" ".join(text[begin:end].split()) for begin, end in spans]


def _is_end(text: str, match: re.Match[str]) -> bool:
    following = text[match.end() :].lstrip(OPENING)[:1]
    if following and not (following.isupper() or following.isdigit()):
        return False
    if not match.group().startswith(".") or match.group().startswith(".."):
        return True
    before = text[: match.start()].split()[-1:] or [""]
    word = before[0].strip(OPENING).lower()
    is_initial = len(word) == 1 and word.isalpha() and word != "i"
    return word not in ABBREVIATIONS and not is_initial


def _plain(word: str) -> str:
    return word.lower().replace("’", "'")


@lru_cache(maxsize=64)
def _analysed(text: str, model: str) -> tuple[list[str], list[str], list[int]]:
    """Sentences by spaCy, lower-case tokens without punctuation, and the sentence of each token."""
    sentences = list(_spacy(model)(text).sents)
    tokens: list[str] = []
    sentence_of: list[int] = []
    for number, sentence in enumerate(sentences):
        plain = [re.sub(r"\W", "", token.text).lower() for token in sentence]
        tokens.extend(filter(None, plain))
        sentence_of.extend([number] * sum(map(bool, plain)))
    return [sentence.text for sentence in sentences], tokens, sentence_of


@lru_cache(maxsize=1)
def _spacy(model: str) -> Any:
    """Load a language model; spaCy is optional and slow to import."""
    try:
        spacy = importlib.import_module("spacy")
    except ImportError as error:
        raise ImportError(
            "The sentences of the published code come from spaCy, which is not installed. Run: "
            f"pip install bm[text] && python -m spacy download {model}   (or leave out faithful)"
        ) from error
    try:
        return spacy.load(model)
    except OSError as error:
        raise ImportError(
            f"spaCy has no model {model!r} ({error}). Run: python -m spacy download {model}   "
            "(or name the folder of one with spacy_model)"
        ) from error
