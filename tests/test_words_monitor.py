import numpy as np
import pytest
import torch
from small_splits import make_dataset, noisy, perfect

from bm.evaluation import SegmentFeatures, word_accuracy
from bm.segments import SegmentLoader
from bm.segments.splits import identify

RNG = np.random.default_rng(4)
STORY = [(f"sentence {n // 5}", n % 5, f"Word{RNG.integers(12)}") for n in range(40)]
LOUD = [(sentence, index, word.upper()) for sentence, index, word in STORY]


@pytest.fixture
def dataset():
    """Three listeners; the second's words are written in capitals."""
    return make_dataset([STORY, LOUD, STORY[:20]])


def monitor(dataset, predict, batch_size=8, **options):
    batches = SegmentLoader(dataset, batch_size).in_order()
    return word_accuracy(dataset, batches, predict, perfect, batch_size=batch_size, **options)


def naive(dataset, predict, top_x, n_negatives, n_recordings, seed):
    """Rank every candidate one by one, copies included, and look at the words of the best."""
    generator = torch.Generator().manual_seed(seed)
    negatives = torch.randperm(len(dataset), generator=generator)[:n_negatives].tolist()
    everything = dataset.gather(torch.arange(len(dataset)))
    estimates, targets = predict(everything).values, everything.features
    identity, words = identify(dataset.table), dataset.table["word"].str.lower()
    hits = []
    for row in np.flatnonzero(dataset.table["recording"] < n_recordings):
        pool = [other for other in negatives if identity[other] != identity[row]] + [row]
        scores = [
            float((estimates[row] * targets[other]).sum() / (targets[other].norm() + 1e-8))
            for other in pool
        ]
        best = np.argsort(scores)[::-1][:top_x]
        hits.append(any(words[pool[place]] == words[row] for place in best))
    return np.mean(hits)


@pytest.mark.parametrize(
    ("top_x", "n_negatives", "n_recordings"), [(1, 1000, 9), (3, 25, 2), (5, 60, 1)]
)
def test_accuracy_equals_a_naive_loop(dataset, top_x, n_negatives, n_recordings):
    predict = noisy(3.0)
    options = {"top_x": top_x, "n_negatives": n_negatives, "n_recordings": n_recordings, "seed": 7}
    found = monitor(dataset, predict, **options)["wer"]
    assert found == pytest.approx(naive(dataset, predict, **options))
    assert 0 < found < 1


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_chunks_and_memory_limit_do_not_change_it(dataset, batch_size):
    expected = monitor(dataset, noisy(3.0), top_x=2)
    assert monitor(dataset, noisy(3.0), batch_size, top_x=2, max_bytes=0) == expected


def test_case_of_the_word_does_not_matter(dataset):
    assert monitor(dataset, perfect, top_x=1)["wer"] == 1.0


def test_estimates_that_say_nothing_miss(dataset):
    for value in (0.0, float("nan")):

        def flat(batch, value=value):
            return SegmentFeatures(torch.full_like(batch.features, value), batch.row)

        assert monitor(dataset, flat, top_x=3)["wer"] == 0.0


def test_noise_scores_at_the_chance_level():
    story = [(f"sentence {n}", 0, f"word{n % 40}") for n in range(400)]
    dataset = make_dataset([story])

    def noise(batch):
        generator = torch.Generator().manual_seed(int(batch.row[0]))
        estimate = torch.randn(batch.features.shape, generator=generator)
        return SegmentFeatures(estimate, batch.row)

    found = monitor(dataset, noise, top_x=10, n_negatives=200)
    error = np.sqrt(found["wer_chance"] * (1 - found["wer_chance"]) / 400)
    assert abs(found["wer"] - found["wer_chance"]) < 3 * error
    assert 0.15 < found["wer_chance"] < 0.35


def test_chance_follows_the_frequency_of_words():
    story = [(f"sentence {n}", 0, "the" if n < 10 else f"word{n}") for n in range(20)]
    found = monitor(make_dataset([story]), perfect, top_x=1)
    assert found["wer_chance"] == pytest.approx((10 * 10 / 20 + 10 * 1 / 20) / 20)


def test_only_the_first_recordings_are_predicted(dataset):
    seen = []

    def predict(batch):
        seen.extend(batch.row.tolist())
        return perfect(batch)

    monitor(dataset, predict, n_recordings=1)
    assert seen == list(range(40))
    seen.clear()
    monitor(dataset, predict, recordings=[2])
    assert seen == list(range(80, 100))


def test_same_seed_draws_the_same_candidates(dataset):
    first, again, other = (
        monitor(dataset, noisy(3.0), top_x=1, n_negatives=10, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_segments_without_a_word_are_left_out(dataset, caplog):
    dataset.table.loc[:29, "word"] = None
    assert monitor(dataset, perfect, top_x=1, n_recordings=1)["wer"] == 1.0
    dataset.table["word"] = None
    assert monitor(dataset, perfect) == {}
    assert "none of the segments has a word" in caplog.text
