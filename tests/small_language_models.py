"""Tiny language models and spaCy pipelines in folders, loaded as the real ones are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

BERT_VOCABULARY = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] , . ! ? ' - the he was not an ill dis ##posed young man don t "
    "##s cold heart ##ed sea"
).split()
XLM_PIECES = "▁he ▁was ▁not ▁an ▁ill ▁dis posed ▁young ▁man , . ! ▁ ' t ▁don s".split()
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
    "initializer_range": 0.5,
}  # fmt: skip


def save_bert(folder: Path, hidden_size: int = 16, n_positions: int = 40) -> Path:
    """A small BERT with random weights, and a WordPiece tokenizer."""
    torch.manual_seed(0)
    sizes = {**SIZES, "hidden_size": hidden_size, "max_position_embeddings": n_positions}
    BertModel(BertConfig(vocab_size=len(BERT_VOCABULARY), **sizes)).save_pretrained(folder)
    vocabulary = {token: index for index, token in enumerate(BERT_VOCABULARY)}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


def save_xlm(folder: Path) -> Path:
    """A small XLM-R with random weights, and a unigram tokenizer."""
    torch.manual_seed(0)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *XLM_PIECES, "<mask>"]
    config = XLMRobertaConfig(vocab_size=len(tokens), max_position_embeddings=42, **SIZES)
    XLMRobertaModel(config).save_pretrained(folder)
    scores = [(token, -float(index)) for index, token in enumerate(tokens)]
    XLMRobertaTokenizer(vocab=scores).save_pretrained(folder)
    return folder


def save_spacy(
    folder: Path,
    language: str,
    vectors: Mapping[str, Sequence[float]] | None = None,
    tags: Mapping[str, str] | None = None,
    with_layer: bool = False,
) -> Path:
    """A pipeline of spaCy: with vectors, parts of speech by word, or a random first layer."""
    import spacy

    model = spacy.blank(language)
    if vectors:
        model.vocab.reset_vectors(width=len(next(iter(vectors.values()))))
        for word, vector in vectors.items():
            model.vocab.set_vector(word, np.array(vector, dtype=np.float32))
    if with_layer:
        spacy.util.fix_random_seed(0)
        model.add_pipe("tok2vec")
        model.initialize()
    if tags:
        ruler = model.add_pipe("attribute_ruler")
        for word, tag in tags.items():
            ruler.add([[{"LOWER": word}]], {"POS": tag})
    model.to_disk(folder)
    return folder
