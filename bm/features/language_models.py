"""Words in pretrained language models (BERT, XLM-R): what they mean, alone or in their sentence.

Enters: word events with their sentences. Leaves: for each word a vector, the mean over its tokens.

References
----------
.. [1] Devlin et al. 2019, BERT, doi:10.48550/arXiv.1810.04805
.. [2] De Vries et al. 2019, BERTje, doi:10.48550/arXiv.1912.09582
.. [3] Conneau et al. 2020, XLM-R, doi:10.48550/arXiv.1911.02116
"""

import logging
import re
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bm.core.hashing import digest, file_checksum
from bm.core.messages import DataError
from bm.core.progress import progress
from bm.features.base import EventFeature, register
from bm.features.context import Place, isolated, locate_words
from bm.features.language import AUTO, event_languages, language_code
from bm.features.vectors import fill_missing, rows_by_model
from bm.features.weights import find_model, model_identity
from bm.features.words import log_missing, word_texts

logger = logging.getLogger(__name__)

ModelName = tuple[str, str | None]
"""Name or folder of a model, and its commit on the hub."""

BERT: dict[str, ModelName] = {
    "en": ("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594"),
    "nl": ("GroNLP/bert-base-dutch-cased", None),
}
MULTILINGUAL = "google-bert/bert-base-multilingual-cased"
XLM: ModelName = ("FacebookAI/xlm-roberta-base", "e73636d4f797dec63c3081bb6ed5c7b0bb3f2089")
MODELS_FOLDER = "./features_models"
BATCH_SIZE = 16
TOKENIZER = re.compile("tokenizer|vocab|merges|sentencepiece|spiece|special_tokens|added_tokens")
"""Names of the files of a tokenizer begin so."""


class LanguageModelFeature(EventFeature):
    """What features from pretrained language models have in common.

    Parameters
    ----------
    contextual : True: hidden states of the word's tokens, with its sentence as context. False:
        their input embeddings, which are the same wherever the word occurs.
    layers : hidden states to average, if contextual: 0 is the input of the first layer, -1 the
        output of the last.
    models_folder : where models were copied to (see `bm.features.weights.find_model`).
    """

    dimension = 768
    columns = ("word", "word_index", "word_sequence", "language")

    def __init__(self, contextual: bool, layers: Sequence[int], models_folder: str | Path):
        if not layers:
            raise ValueError(
                f"{self.name}: layers=[] leaves nothing to average. Name at least one."
            )
        self.contextual = contextual
        self.layers = tuple(layers)
        self.models_folder = models_folder

    @abstractmethod
    def models(self, events: pd.DataFrame) -> list[ModelName]:
        """Model for each word."""

    def values(self, events: pd.DataFrame) -> np.ndarray:
        """[n_events, F] vectors.

        Raises
        ------
        DataError : a model is not on this machine and can't be downloaded, or words come without
            their sentences.
        """
        words = word_texts(events, self.name)
        places = (
            locate_words(events, self.name)
            if self.contextual
            else [isolated(word) for word in words]
        )

        def rows(model: ModelName, chosen: np.ndarray) -> np.ndarray:
            encoder = Encoder(find_model(model[0], self.models_folder, model[1]), *model)
            own, texts = [places[index] for index in chosen], words.iloc[chosen]
            vectors = encoder.encode(own, self.layers if self.contextual else (), self.name)
            unknown = [place in encoder.unknown for place in own]
            if all(unknown):
                raise DataError(
                    f"{self.name}: none of the {len(own)} words, such as {texts.iloc[0]!r}, is in "
                    f"the vocabulary of {model[0]}. Is it a model of their language?"
                )
            log_missing(self.name, "not in the vocabulary are unknown tokens", texts[unknown])
            return fill_missing(self.name, texts, own, vectors)

        return rows_by_model(self.name, self.models(events), rows)

    def cache_key(self, events: pd.DataFrame) -> dict[str, Any]:
        """What the files of the models hold, and what is done with them."""
        models = self.models(events)
        identity = {name: self._identity(*name) for name in dict.fromkeys(models)}
        return {
            "models": digest([identity[name] for name in models]),
            "layers": list(self.layers) if self.contextual else None,
        }

    def _identity(self, name: str, revision: str | None) -> list[str]:
        folder = find_model(name, self.models_folder, revision)
        names = sorted(path.name for path in folder.iterdir() if TOKENIZER.match(path.name))
        return [model_identity(folder), *(file_checksum(folder / name) for name in names)]


@register
class BertEmbedding(LanguageModelFeature):
    """Word in its sentence by BERT [1]_, in Dutch BERTje [2]_: F = 768.

    Parameters
    ----------
    lang : language of all words, or "auto": the events tell.
    model : any BERT on the Hugging Face hub, or a local folder, for all words; None: that of the
        language.
    revision : commit of `model` on the hub; None: the latest that is here, else the latest there.
    layers, models_folder : see `LanguageModelFeature`.
    """

    def __init__(
        self,
        lang: str = AUTO,
        model: str | None = None,
        revision: str | None = None,
        layers: Sequence[int] = (-1,),
        models_folder: str | Path = MODELS_FOLDER,
    ):
        super().__init__(True, layers, models_folder)
        self.lang = lang if lang == AUTO else language_code(lang)
        self.model = model
        self.revision = revision

    def models(self, events: pd.DataFrame) -> list[ModelName]:
        """Model for each word.

        Raises
        ------
        ValueError : no model is known for a language.
        """
        if self.model is not None:
            return [(self.model, self.revision)] * len(events)
        languages = event_languages(events, self.lang, self.name)
        for language in languages.unique():
            if language not in BERT:
                raise ValueError(
                    f"{self.name}: no model is known for the language {language!r}. Name one: "
                    f"dset.features_params.{self.name}.model={MULTILINGUAL}"
                )
        return [BERT[language] for language in languages]


@register
class XlmEmbedding(LanguageModelFeature):
    """Word by XLM-R [3]_, which knows 100 languages: F = 768.

    Parameters
    ----------
    model : another one of the Hugging Face hub, or a local folder; None: the base model.
    revision : commit of `model` on the hub; None: the latest that is here, else the latest there.
    contextual, layers, models_folder : see `LanguageModelFeature`.
    """

    def __init__(
        self,
        contextual: bool = False,
        model: str | None = None,
        revision: str | None = None,
        layers: Sequence[int] = (-1,),
        models_folder: str | Path = MODELS_FOLDER,
    ):
        super().__init__(contextual, layers, models_folder)
        self.model = XLM if model is None else (model, revision)

    def models(self, events: pd.DataFrame) -> list[ModelName]:
        """The one model for each word."""
        return [self.model] * len(events)


class Encoder:
    """A language model with its tokenizer.

    Parameters
    ----------
    folder : files of the model.
    name, revision : what it is called on the hub, where files of its tokenizer may still be.

    Attributes
    ----------
    unknown : places that were encoded with an unknown token.
    """

    def __init__(self, folder: Path, name: str, revision: str | None):
        # Takes a second to import, which only these features should cost.
        from transformers import AutoModel, AutoTokenizer

        self.model = AutoModel.from_pretrained(folder).eval()
        in_hub_cache = folder.parent.name == "snapshots"
        source, commit = (name, folder.name) if in_hub_cache else (str(folder), None)
        problem = ""
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source, revision=commit)
            # Without its files, transformers makes up a tokenizer that knows no word.
            if len(self.tokenizer) < self.model.config.vocab_size / 2:
                problem = f"only {len(self.tokenizer)} of {self.model.config.vocab_size} tokens"
            elif not self.tokenizer.is_fast:
                problem = "it doesn't tell which letters a token stands for"
        except (OSError, ValueError) as error:
            problem = str(error)
        if problem:
            raise DataError(
                f"The model {name} in {folder} comes without a usable tokenizer ({problem}). Copy "
                "all its files there: tokenizer.json, tokenizer_config.json, ..."
            )
        config = self.model.config
        reserved = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        self.longest = config.max_position_embeddings - reserved  # tokens
        self.unknown: set[Place] = set()

    @torch.inference_mode()
    def encode(
        self, places: Sequence[Place], layers: Sequence[int], title: str
    ) -> dict[Place, np.ndarray | None]:
        """Vector [F] of each place, the mean over its tokens; None if no token is left of it.

        Parameters
        ----------
        places : words in their texts.
        layers : hidden states to average; none: input embeddings.
        title : for messages.
        """
        n_states = self.model.config.num_hidden_layers + 1
        for layer in layers:
            if not -n_states <= layer < n_states:
                raise ValueError(
                    f"{title}: layers={list(layers)}, but the model has {n_states} hidden states: "
                    f"choose {-n_states} to {n_states - 1}."
                )
        stretches = self._stretches(places, title)
        order = sorted(stretches, key=len)  # alike in length: little padding
        batches = [order[first : first + BATCH_SIZE] for first in range(0, len(order), BATCH_SIZE)]
        vectors: dict[Place, np.ndarray | None] = {}
        for texts in progress(batches, title, "text", units_per_item=BATCH_SIZE):
            batch = self.tokenizer(
                texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt",
                return_offsets_mapping=True, return_special_tokens_mask=True,
            )  # fmt: skip
            offsets, special = batch.pop("offset_mapping"), batch.pop("special_tokens_mask")
            states = self._states(batch, layers)
            is_unknown = batch["input_ids"] == self.tokenizer.unk_token_id
            for row, text in enumerate(texts):
                for place, begin, end in stretches[text]:
                    own = (offsets[row, :, 0] < end) & (offsets[row, :, 1] > begin)
                    own &= special[row] == 0
                    vectors[place] = states[row, own].mean(dim=0).numpy() if own.any() else None
                    if is_unknown[row, own].any():
                        self.unknown.add(place)
        return vectors

    def _states(self, batch: Mapping[str, Tensor], layers: Sequence[int]) -> Tensor:
        """[B, n_tokens, F]."""
        if not layers:
            return self.model.get_input_embeddings()(batch["input_ids"])
        hidden = self.model(**batch, output_hidden_states=True).hidden_states
        return torch.stack([hidden[layer] for layer in layers]).mean(dim=0)

    def _stretches(
        self, places: Sequence[Place], title: str
    ) -> Mapping[str, list[tuple[Place, int, int]]]:
        """Texts short enough for the model, with the places in each."""
        stretches: dict[str, list[tuple[Place, int, int]]] = defaultdict(list)
        borders: dict[str, list[tuple[int, int]]] = {}
        for place in dict.fromkeys(places):
            if place.text not in borders:
                borders[place.text] = self._cut(place.text, 0, len(place.text))
            begin, end = next(part for part in borders[place.text] if place.begin < part[1])
            own = place, place.begin - begin, min(place.end, end) - begin
            stretches[place.text[begin:end]].append(own)
        n_cut = sum(len(parts) > 1 for parts in borders.values())
        if n_cut:
            logger.warning(
                "%s: %d of %d sentences have more than %d tokens: cut there, context and all.",
                title, n_cut, len(borders), self.longest,
            )  # fmt: skip
        return stretches

    def _cut(self, text: str, begin: int, end: int) -> list[tuple[int, int]]:
        """Borders of parts that the model has room for, between words."""
        n_tokens = len(self.tokenizer(text[begin:end], verbose=False)["input_ids"])
        gaps = [begin + match.end() for match in re.finditer(r"\S\s+(?=\S)", text[begin:end])]
        if n_tokens <= self.longest or not gaps:
            return [(begin, end)]
        middle = min(gaps, key=lambda gap: abs(2 * gap - begin - end))
        return [*self._cut(text, begin, middle), *self._cut(text, middle, end)]
