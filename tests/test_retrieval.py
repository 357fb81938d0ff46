import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from small_splits import make_dataset, noisy, perfect

from bm.core.messages import DataError
from bm.evaluation import Retrieval, SegmentFeatures, retrieve
from bm.evaluation.candidates import Candidates
from bm.losses import ClipLoss
from bm.segments import SegmentLoader
from bm.segments.splits import identify

STORY = [(f"sentence {n // 6}", n % 6, f"word{n % 7}") for n in range(30)]


@pytest.fixture
def dataset():
    """Three listeners; the second hears all twice, the third a part."""
    return make_dataset([STORY, STORY + STORY, STORY[10:25]])


def batches_of(dataset, batch_size=8):
    return SegmentLoader(dataset, batch_size).in_order()


def naive(dataset, predict):
    """Rank and probability of the truth, query by query and candidate by candidate."""
    identity = identify(dataset.table).tolist()
    first = [row for row, name in enumerate(identity) if name not in identity[:row]]
    everything = dataset.gather(torch.arange(len(dataset)))
    estimates, targets = predict(everything).values, everything.features
    ranks, probabilities = [], []
    for row, name in enumerate(identity):
        scores = [
            float((estimates[row] * targets[other]).sum() / (targets[other].norm() + 1e-8))
            for other in first
        ]
        truth = next(place for place, other in enumerate(first) if identity[other] == name)
        ranks.append(sum(score > scores[truth] for score in scores))
        probabilities.append(np.exp(scores[truth]) / np.exp(scores).sum())
    return ranks, probabilities


def test_ranks_and_probabilities_equal_a_naive_loop(dataset):
    predict = noisy(2.0)
    found = retrieve(dataset, batches_of(dataset), predict, perfect, batch_size=7)
    ranks, probabilities = naive(dataset, predict)
    assert found.table["rank"].tolist() == ranks
    assert 0 < found.accuracy(1) < 1
    np.testing.assert_allclose(found.table["probability"], probabilities, rtol=1e-4)


def test_candidates_are_first_occurrences_in_order(dataset):
    found = retrieve(dataset, batches_of(dataset), perfect, perfect)
    assert found.n_candidates == 30
    assert found.candidates["recording"].unique().tolist() == [0]
    assert found.candidates["word_index"].tolist() == [n % 6 for n in range(30)]
    assert len(found.table) == 30 + 60 + 15


def test_scores_are_those_of_the_clip_loss(dataset):
    predict = noisy(1.0)
    found = retrieve(dataset, batches_of(dataset), predict, perfect)
    everything = dataset.gather(torch.arange(30))
    expected = ClipLoss().probabilities(predict(everything).values, everything.features)
    np.testing.assert_allclose(found.table["probability"][:30], expected.diagonal(), rtol=1e-4)
    np.testing.assert_allclose(
        np.stack(found.table["best_probability"][:30]), expected.topk(10, dim=1).values, rtol=1e-4
    )
    assert found.table["best"][:30].tolist() == expected.topk(10, dim=1).indices.tolist()


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("max_bytes", [0, 1 << 30])
def test_chunks_and_memory_limit_do_not_change_the_outcome(dataset, batch_size, max_bytes):
    predict = noisy(1.5)
    whole = retrieve(dataset, batches_of(dataset, 200), predict, perfect, 200)
    parts = retrieve(dataset, batches_of(dataset, 5), predict, perfect, batch_size, max_bytes)
    pd.testing.assert_frame_equal(whole.table, parts.table, rtol=1e-4)
    pd.testing.assert_frame_equal(whole.candidates, parts.candidates)


@pytest.mark.parametrize(("max_bytes", "n_times_gathered"), [(0, 1 + 14), (1 << 30, 1)])
def test_targets_are_gathered_again_only_above_the_limit(dataset, max_bytes, n_times_gathered):
    made, alive = [], []

    def target(batch):
        features = batch.features.contiguous()  # so that what is kept is a view of it
        made.append((weakref.ref(features), len(batch)))
        alive.append(sum(n for tensor, n in made if tensor() is not None))
        return SegmentFeatures(features, batch.row)

    retrieve(dataset, batches_of(dataset), perfect, target, batch_size=4, max_bytes=max_bytes)
    assert sum(n for _, n in made) == 30 * n_times_gathered
    assert max(alive) <= 12  # of a kept target there is one copy, in one array


@pytest.mark.parametrize("loaded", [1, 5, 16, 50])
def test_estimates_wait_until_there_are_enough_for_a_product(dataset, loaded):
    candidates = Candidates(dataset, np.arange(30), perfect, chunk_size=16)
    found = list(candidates.scores(batches_of(dataset, loaded), noisy(1.0)))
    sizes = [len(scores) for scores, _ in found]
    assert max(sizes) == {1: 16, 5: 15, 16: 16, 50: 50}[loaded]
    assert torch.cat([row for _, row in found]).tolist() == list(range(len(dataset)))
    everything = dataset.gather(torch.arange(len(dataset)))
    expected = ClipLoss().scores(noisy(1.0)(everything).values, everything.features[:30])
    torch.testing.assert_close(torch.cat([scores for scores, _ in found]), expected)


def test_scores_in_half_precision_lose_little(dataset):
    whole, half = (
        torch.cat([
            scores
            for scores, _ in Candidates(dataset, np.arange(30), perfect, dtype=dtype).scores(
                batches_of(dataset), noisy(1.0)
            )
        ])
        for dtype in (torch.float32, torch.bfloat16)
    )  # fmt: skip
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.02 * whole.abs().max()


def test_order_of_queries_does_not_matter(dataset):
    predict = noisy(1.5)
    ordered = retrieve(dataset, batches_of(dataset), predict, perfect).table
    shuffled = retrieve(dataset, SegmentLoader(dataset, 8).epoch(3), predict, perfect).table
    again = shuffled.sort_values("row", ignore_index=True)
    pd.testing.assert_frame_equal(ordered, again, rtol=1e-4)


def test_rejected_segments_are_counted_and_do_not_count(dataset, caplog):
    def without_third(batch):
        return perfect(batch.select(batch.row % 3 != 0))

    found = retrieve(dataset, batches_of(dataset), without_third, without_third)
    assert found.n_candidates == 20
    assert (found.table["row"] % 3 != 0).all()
    assert found.accuracy(1) == 1.0
    assert "40 of 105 segments and 10 of 30 candidates were rejected" in caplog.text


def test_nothing_left_is_an_error(dataset):
    def nothing(batch):
        return perfect(batch.select(batch.row < 0))

    with pytest.raises(DataError, match="rejected"):
        retrieve(dataset, batches_of(dataset), nothing, perfect)


def test_estimates_without_information_stay_at_chance(dataset):
    def flat(batch):
        return SegmentFeatures(torch.zeros_like(batch.features), batch.row)

    assert retrieve(dataset, batches_of(dataset), flat, perfect).accuracy(10) == 0.0


def retrieval_of(ranks_by_subject):
    rows = [(subject, rank) for subject, ranks in enumerate(ranks_by_subject) for rank in ranks]
    table = pd.DataFrame(rows, columns=["subject", "rank"]).astype({"rank": float})
    return Retrieval(table, pd.DataFrame({"word": [str(n) for n in range(50)]}))


def test_accuracy_weighs_segments_and_standard_error_weighs_subjects():
    found = retrieval_of([[0, 0, 0, 20], [0, 20], [20, 20]])
    assert found.accuracy(1) == 0.5
    assert found.by_subject(1) == {0: 0.75, 1: 0.5, 2: 0.0}
    assert found.standard_error(1) == pytest.approx(np.std([0.75, 0.5, 0.0], ddof=1) / np.sqrt(3))
    assert found.sampling_error(1) == pytest.approx(np.sqrt(0.25 / 8))


def test_one_subject_has_no_standard_error_and_no_interval():
    found = retrieval_of([[0, 1, 2]])
    assert np.isnan(found.standard_error(1))
    assert found.interval(1) is None


def test_interval_covers_the_mean_and_narrows_with_subjects():
    rng = np.random.default_rng(0)
    few, many = (retrieval_of(rng.integers(0, 20, size=(n, 30))) for n in (4, 40))
    for found in (few, many):
        low, high = found.interval(10)
        assert low < found.accuracy(10) < high
        assert found.interval(10) == (low, high)
    widths = [high - low for low, high in (few.interval(10), many.interval(10))]
    assert widths[1] < widths[0]


def test_metrics_name_accuracy_chance_and_number_of_candidates():
    metrics = retrieval_of([[0, 3, 8, 30]]).metrics()
    assert metrics["segment_top1"] == 0.25
    assert metrics["segment_top5"] == 0.5
    assert metrics["segment_top10"] == 0.75
    assert metrics["chance_top10"] == 0.2
    assert metrics["n_candidates"] == 50
