"""Features of words by spaCy: vectors, and parts of speech.

Enters: word events. Leaves: a vector, or a class, for each word. spaCy (extra ``text``) and its
models are optional; without them the rest of bm works.

References
----------
.. [1] Honnibal et al. 2020, spaCy, doi:10.5281/zenodo.1212303
.. [2] De Marneffe et al. 2021, Universal Dependencies, doi:10.1162/coli_a_00402
"""

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from bm.core.messages import DataError
from bm.features.base import EventFeature, register
from bm.features.context import Place, locate_words
from bm.features.language import AUTO, event_languages, language_code
from bm.features.vectors import fill_missing, rows_by_model
from bm.features.words import log_missing, word_texts

MODELS = {
    **{
        language: f"{language}_core_news"
        for language in "ca da de el es fi fr hr it ja ko lt mk nb nl pl pt ro ru sl sv uk".split()
    },
    "en": "en_core_web",
    "zh": "zh_core_web",
}
"""Models of spaCy by language; the size follows ("_md", "_sm")."""
TAGS = (
    "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN",
    "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip
"""Universal parts of speech [2]_; number k is class k + 1."""


class SpacyFeature(EventFeature):
    """What features by spaCy [1]_ have in common.

    Parameters
    ----------
    lang : language of all words, or "auto": the events tell.
    model : name of an installed model of spaCy, or a folder, for all words; None: that of the
        language.
    """

    size: ClassVar[str]
    columns = ("word", "word_index", "word_sequence", "language")

    def __init__(self, lang: str = AUTO, model: str | None = None):
        self.lang = lang if lang == AUTO else language_code(lang)
        self.model = model

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """Rows [n_events, F], by the model of each word's language.

        Raises
        ------
        ImportError : spaCy isn't installed.
        DataError : the model isn't, or it doesn't fit.
        """
        return rows_by_model(
            self.name,
            self._model_names(events),
            lambda name, chosen: self.rows(load_model(name), events.iloc[chosen]),
        )

    @abstractmethod
    def rows(self, model: Any, events: pd.DataFrame) -> np.ndarray:
        """Rows [n_events, F] by one model of spaCy."""

    def _model_names(self, events: pd.DataFrame) -> list[str]:
        if self.model is not None:
            return [self.model] * len(events)
        languages = event_languages(events, self.lang, self.name)
        for language in languages.unique():
            if language not in MODELS:
                raise ValueError(
                    f"{self.name}: spaCy has no model for the language {language!r}. Give the "
                    f"folder of one of your own: dset.features_params.{self.name}.model=PATH"
                )
        return [f"{MODELS[language]}_{self.size}" for language in languages]


@register
class WordEmbedding(SpacyFeature):
    """Vector of the word, whatever its context, in the medium model of its language: F = 300.

    The vector is that of the word as written, else in lower case, else the mean over its parts
    ("don't": "do" and "n't"). Words without one get the mean of the other words' vectors, and are
    logged. A model without a table of vectors gives the output of its first layer (``tok2vec``) for
    the word alone, which any word has.

    Parameters
    ----------
    lang, model : see `SpacyFeature`.
    """

    size = "md"
    dimension = 300

    def rows(self, model: Any, events: pd.DataFrame) -> np.ndarray:
        """[n_events, F] vectors."""
        words = word_texts(events, self.name)
        distinct = words.unique().tolist()
        if len(model.vocab.vectors):
            vectors = {word: _table_vector(model, word) for word in distinct}
        elif "tok2vec" in model.pipe_names:
            vectors = _layer_vectors(model, distinct)
        else:
            raise DataError(
                f"{self.name}: the model {model.meta['lang']}_{model.meta['name']} has neither "
                f"vectors nor tok2vec. Choose another: dset.features_params.{self.name}.model=..."
            )
        return fill_missing(self.name, words, words.tolist(), vectors)


@register
class WordEmbeddingSmall(WordEmbedding):
    """The same of the small model, which has no table of vectors: F = 96.

    Parameters
    ----------
    lang, model : see `SpacyFeature`.
    """

    size = "sm"
    dimension = 96


@register
class PartOfSpeech(SpacyFeature):
    """Class of the word's part of speech: 1 to 17 as in `TAGS`, 0 where no word is heard.

    Told from the whole sentence; that of the first part if spaCy takes a word apart ("don't":
    auxiliary). Words that it has no part of speech for are "X", and logged.

    Parameters
    ----------
    lang, model : see `SpacyFeature`.
    """

    size = "sm"
    normalizable = False
    cardinality = 1 + len(TAGS)

    def rows(self, model: Any, events: pd.DataFrame) -> np.ndarray:
        """[n_events, 1] classes."""
        places = locate_words(events, self.name)
        texts = list({place.text for place in places})
        docs = dict(zip(texts, model.pipe(texts), strict=True))
        if not any(doc.has_annotation("POS") for doc in docs.values()):
            raise DataError(
                f"{self.name}: the model {model.meta['lang']}_{model.meta['name']} doesn't tell "
                f"parts of speech. Choose another: dset.features_params.{self.name}.model=..."
            )
        tags = [_tag(docs[place.text], place) for place in places]
        unknown = np.array([tag not in TAGS for tag in tags])
        words = word_texts(events, self.name)
        log_missing(self.name, 'without a part of speech count as "X"', words[unknown])
        known = [TAGS.index(tag if tag in TAGS else "X") + 1 for tag in tags]
        return np.array(known, dtype=np.float32)[:, None]


@lru_cache(maxsize=4)
def load_model(name: str) -> Any:
    """Model of spaCy by the name of its package, or by its folder.

    Raises
    ------
    ImportError : spaCy isn't installed.
    DataError : the model isn't there.
    """
    try:
        import spacy  # here: optional, and takes seconds to load
    except ImportError as error:
        raise ImportError(
            "Word embeddings and parts of speech need the package spacy. Run: pip install bm[text] "
            "  (or: pip install spacy)"
        ) from error
    folder = Path(name).expanduser()
    try:
        return spacy.load(folder if folder.is_dir() else name, exclude=["ner", "lemmatizer"])
    except OSError as error:
        raise DataError(
            f"The spaCy model {name} is not installed. Run: python -m spacy download {name}   "
            "Without internet, copy the model's folder (the one with config.cfg) to this machine "
            "and give its path as the feature's `model`: dset.features_params.FEATURE.model=PATH"
        ) from error


def _table_vector(model: Any, word: str) -> np.ndarray | None:
    for form in (word, word.lower()):
        if model.vocab.has_vector(form):
            return model.vocab.get_vector(form)
    parts = [part for part in model.make_doc(word) if part.has_vector and not part.is_punct]
    return np.mean([part.vector for part in parts], axis=0) if parts else None


def _layer_vectors(model: Any, words: Sequence[str]) -> dict[str, np.ndarray | None]:
    with model.select_pipes(enable=["tok2vec"]):
        docs = list(model.pipe(words))
    vectors: dict[str, np.ndarray | None] = {}
    for word, doc in zip(words, docs, strict=True):
        letters = np.array([not part.is_punct for part in doc])
        vectors[word] = doc.tensor[letters if letters.any() else slice(None)].mean(axis=0)
    return vectors


def _tag(doc: Any, place: Place) -> str:
    span = doc.char_span(place.begin, place.end, alignment_mode="expand")
    parts = [part.pos_ for part in span if not part.is_punct and not part.is_space]
    return parts[0] if parts else span[0].pos_
