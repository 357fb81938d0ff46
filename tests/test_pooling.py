"""Retrieval from several trials at once, and what chance alone would give."""

import numpy as np
import pandas as pd
import pytest
import torch
from small_splits import make_dataset, noisy, perfect

from bm.evaluation import Retrieval, SegmentFeatures, retrieve
from bm.evaluation.null import permutation_null, permutation_p
from bm.evaluation.pooling import EVERYONE, REPETITIONS, SENTENCES, SINGLE, Pool
from bm.segments import SegmentBatch, SegmentDataset, SegmentLoader

STORY = [(f"sentence {n // 6}", n % 6, f"word{n % 7}") for n in range(30)]
STRENGTH = 6.0


def retrieved(dataset: SegmentDataset, predict, batch_size: int = 8, pool: Pool | None = None):
    loader = SegmentLoader(dataset, batch_size)
    return retrieve(dataset, loader.in_order(), predict, perfect, watch=pool)


def probabilities(dataset: SegmentDataset, predict) -> np.ndarray:
    """[n, V] log-probability of all candidates for each row."""
    everything = dataset.gather(torch.arange(len(dataset)))
    flat = everything.features[:30].flatten(1)
    scores = predict(everything).values.flatten(1) @ flat.T / flat.norm(dim=1)
    return scores.log_softmax(dim=1).numpy()


@pytest.fixture(scope="module")
def dataset() -> SegmentDataset:
    """Four listeners of a story, the last of whom hears its first two sentences again."""
    return make_dataset([STORY] * 3 + [STORY + STORY[:12]])


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_sums_are_those_of_log_probabilities_and_are_named(dataset, batch_size):
    pool = Pool(dataset)
    retrieval = retrieved(dataset, noisy(STRENGTH), batch_size, pool)
    table = pool.table(retrieval).set_index(["what", "k"])
    log = probabilities(dataset, noisy(STRENGTH))
    heard = np.concatenate([np.tile(np.arange(30), 4), np.arange(12)])

    def share(sums: np.ndarray, truth: np.ndarray, k: int) -> float:
        above = (sums > sums[np.arange(len(truth)), truth][:, None]).sum(axis=1)
        return float((above < k).mean())

    assert table.loc[(SINGLE, 5), "accuracy"] == pytest.approx(retrieval.accuracy(5))
    assert table.loc[(SINGLE, 5), "accuracy"] == pytest.approx(share(log, heard, 5))
    everyone = np.stack([log[heard == one].sum(axis=0) for one in range(30)])
    row = table.loc[(EVERYONE, 1)]
    assert row["accuracy"] == pytest.approx(share(everyone, np.arange(30), 1))
    assert row["accuracy"] > table.loc[(SINGLE, 1), "accuracy"]
    assert (row["n_asked"], row["n_trials"]) == (30, pytest.approx(132 / 30))
    assert (row["over"], row["chance"]) == ("sentences", pytest.approx(1 / 30))
    twice = log[90:102] + log[120:132]
    row = table.loc[(REPETITIONS, 5)]
    assert row["accuracy"] == pytest.approx(share(twice, np.arange(12), 5))
    assert (row["n_asked"], row["n_trials"]) == (12, 2)
    assert np.isnan(row["low"])  # one subject


def test_sentences_are_retrieved_from_all_segments_of_one_presentation(dataset):
    pool = Pool(dataset)
    retrieval = retrieved(dataset, noisy(STRENGTH), 8, pool)
    row = pool.table(retrieval).set_index(["what", "k"]).loc[(SENTENCES, 1)]
    log = probabilities(dataset, noisy(STRENGTH))
    per_sentence = np.log(np.exp(log).reshape(132, 5, 6).sum(axis=2))
    sums = per_sentence.reshape(22, 6, 5).sum(axis=1)
    truth = np.concatenate([np.tile(np.arange(5), 4), [0, 1]])
    assert row["accuracy"] == pytest.approx((sums.argmax(axis=1) == truth).mean())
    assert (row["n_asked"], row["n_trials"], row["n_candidates"]) == (22, 6, 5)
    assert row["chance"] == 0.2
    assert row["over"] == "subjects"


def test_rejected_segments_are_missing_from_the_sums(dataset):
    def rejecting(batch: SegmentBatch) -> SegmentFeatures:
        kept = batch.row % 30 != 4  # candidate 4, and its copies
        return perfect(batch.select(kept))

    pool = Pool(dataset)
    loader = SegmentLoader(dataset, 8)
    retrieval = retrieve(dataset, loader.in_order(), rejecting, rejecting, watch=pool)
    table = pool.table(retrieval).set_index(["what", "k"])
    assert table.loc[(EVERYONE, 1), ["n_asked", "n_candidates"]].tolist() == [29, 29]
    assert (table["accuracy"] == 1.0).all()
    assert table.loc[(SENTENCES, 1), "n_trials"] == pytest.approx(127 / 22)


def test_what_cannot_be_summed_is_left_out():
    once = make_dataset([STORY])
    pool = Pool(once)
    table = pool.table(retrieved(once, noisy(1.0), 8, pool))
    assert set(table["what"]) == {SINGLE, EVERYONE, SENTENCES}
    one_sentence = make_dataset([STORY[:6]] * 2)
    pool = Pool(one_sentence)
    table = pool.table(retrieved(one_sentence, noisy(1.0), 8, pool))
    assert set(table["what"]) == {SINGLE, EVERYONE}


# The permutation null


def test_null_is_at_chance_and_a_real_accuracy_beyond_it(dataset):
    retrieval = retrieved(dataset, noisy(1.0))
    null = permutation_null(retrieval, 5, 400)
    assert null.mean() == pytest.approx(5 / 30, abs=0.01)
    assert retrieval.accuracy(5) > null.max()
    assert permutation_p(retrieval, 5, 400) == pytest.approx(1 / 401)
    np.testing.assert_array_equal(permutation_null(retrieval, 5, 400), null)
    with pytest.raises(ValueError, match="only the 10 best"):
        permutation_null(retrieval, 11)


def from_scores(scores: np.ndarray, truth: np.ndarray) -> Retrieval:
    """Outcome of scores [N, 30] of four or more listeners of the story."""
    order = np.argsort(-scores, axis=1)
    rank = (order == truth[:, None]).argmax(axis=1).astype(float)
    table = pd.DataFrame({"candidate": truth, "rank": rank, "best": order[:, :10].tolist()})
    return Retrieval(table, pd.DataFrame({"word_sequence": [sentence for sentence, *_ in STORY]}))


@pytest.mark.parametrize("everybody_alike", [True, False])
def test_decoder_that_knows_nothing_is_significant_as_rarely_as_it_should(everybody_alike):
    truth = np.tile(np.arange(30), 8)
    found = []
    for seed in range(120):
        scores = np.random.default_rng(seed).normal(size=(240, 30))
        if everybody_alike:
            scores = np.tile(scores[:30], (8, 1))
        found.append(permutation_p(from_scores(scores, truth), 5, 99, seed))
    assert 0.03 <= np.mean(np.array(found) <= 0.1) <= 0.18
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


def test_to_know_the_study_is_not_to_know_what_was_said():
    groups = np.repeat(["one", "another"], 15)
    truth = np.tile(np.arange(30), 4)
    scores = np.random.default_rng(0).normal(size=(120, 30))
    scores += 10 * ((truth[:, None] < 15) == (np.arange(30) < 15))
    retrieval = from_scores(scores, truth)
    assert permutation_p(retrieval, 5, 400) < 0.05
    assert permutation_p(retrieval, 5, 400, groups=groups.tolist()) > 0.05
