"""Options of the contrastive loss, each against a slow reference written from its formula."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bm.losses import ClipLoss, Similarity, spectral_penalty

N, V, F, T = 4, 6, 3, 10
RATE = 5.0


@pytest.fixture
def pairs() -> tuple[Tensor, Tensor]:
    """Estimates of 4 segments and 6 candidates, 2 s long."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(N, F, T, generator=generator),
        torch.randn(V, F, T, generator=generator),
    )


@pytest.fixture
def alike() -> Tensor:
    """Candidates 0 and 2 hold the same sound, and so do 1 and 5."""
    found = torch.eye(N, V, dtype=torch.bool)
    found[0, 2] = found[2, 0] = found[1, 5] = True
    return found


def dot(estimate: np.ndarray, candidate: np.ndarray) -> float:
    """Inner product over the norm of the candidate."""
    return float((estimate * candidate).sum() / np.sqrt((candidate**2).sum()))


def by_hand(pairs: tuple[Tensor, Tensor], change, score=dot) -> np.ndarray:
    """[N, V] scores, pair by pair, of what `change` makes of a segment [F, T]."""
    estimates, candidates = (values.double().numpy() for values in pairs)
    return np.array([[score(change(e), change(c)) for c in candidates] for e in estimates])


def scores(pairs: tuple[Tensor, Tensor], **options) -> np.ndarray:
    with torch.no_grad():
        found: Tensor = Similarity(sample_rate=RATE, **options)(*pairs)
    return found.numpy()


def cross_entropy(of_pairs: np.ndarray, right: np.ndarray) -> float:
    """Mean over rows of minus the mean log probability of what is right."""
    log_probability = of_pairs - np.log(np.exp(of_pairs).sum(axis=1, keepdims=True))
    return float(np.mean([-row[r].mean() for row, r in zip(log_probability, right, strict=True)]))


# Scores


def test_windows_are_seconds_from_the_beginning_of_the_segment(pairs):
    expected = by_hand(pairs, lambda x: x[:, 2:7])
    np.testing.assert_allclose(scores(pairs, window=(0.4, 1.4)), expected, rtol=1e-5, atol=1e-6)


def test_training_can_have_a_window_of_its_own(pairs):
    similarity = Similarity(window=(0.4, None), training_window=(0.8, None), sample_rate=RATE)
    while_training = by_hand(pairs, lambda x: x[:, 4:])
    np.testing.assert_allclose(similarity(*pairs), while_training, rtol=1e-5, atol=1e-6)
    afterwards = by_hand(pairs, lambda x: x[:, 2:])
    np.testing.assert_allclose(similarity.eval()(*pairs), afterwards, rtol=1e-5, atol=1e-6)


def test_centred_and_pooled_scores_are_those_of_the_formula(pairs):
    centred = by_hand(pairs, lambda x: x - x.mean())
    np.testing.assert_allclose(scores(pairs, center=True), centred, rtol=1e-5, atol=1e-6)
    pooled = by_hand(pairs, lambda x: x.mean(axis=1))
    np.testing.assert_allclose(scores(pairs, pool=True), pooled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalise", ["x", "both"])
def test_normalised_scores_are_those_of_the_formula(pairs, normalise):
    def score(e: np.ndarray, c: np.ndarray) -> float:
        norm = np.linalg.norm(e) * (np.linalg.norm(c) if normalise == "both" else 1)
        return float((e * c).sum() / norm)

    expected = by_hand(pairs, lambda x: x, score)
    np.testing.assert_allclose(scores(pairs, normalise=normalise), expected, rtol=1e-5, atol=1e-6)


def test_temperature_begins_at_one_and_for_cosines_at_that_of_clip(pairs):
    np.testing.assert_allclose(scores(pairs, temperature=True), scores(pairs), rtol=1e-6)
    cosines = scores(pairs, normalise="both")
    learned = scores(pairs, normalise="both", temperature=True)
    np.testing.assert_allclose(learned, cosines / 0.07, rtol=1e-5)


@pytest.mark.parametrize("twin", [True, False])
def test_projections_are_applied_at_each_sample(pairs, twin):
    torch.manual_seed(0)
    similarity = Similarity(linear=2, n_features=F, twin=twin)
    of_estimates, of_candidates = similarity.project_estimates, similarity.project_candidates
    assert (of_estimates is of_candidates) == twin
    assert len(list(similarity.parameters())) == (2 if twin else 4)
    expected = np.zeros((N, V))
    for i, estimate in enumerate(pairs[0]):
        for j, candidate in enumerate(pairs[1]):
            e = of_estimates.weight[..., 0] @ estimate + of_estimates.bias[:, None]
            c = of_candidates.weight[..., 0] @ candidate + of_candidates.bias[:, None]
            expected[i, j] = dot(e.detach().numpy(), c.detach().numpy())
    np.testing.assert_allclose(similarity(*pairs).detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (1.0, 0.5)}, "isn't one"),
        ({"window": (-0.5, None)}, "isn't one"),
        ({"normalise": "z"}, "choose one of y, x, both"),
        ({"linear": 0, "n_features": 3}, "from 3 to 0 dimensions"),
    ],
)
def test_impossible_scores_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Similarity(sample_rate=RATE, **options)


def test_products_in_half_precision_are_added_up_in_single_precision():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(40_000, generator=generator)
    estimates, candidates = (shared + torch.randn(2, 8, 40_000, generator=generator)).bfloat16()
    norms = candidates.double().norm(dim=1)
    exact = estimates.double() @ candidates.double().T / norms
    scores = Similarity().compare(estimates, candidates, norms.float())
    error = (scores - exact).abs().max()
    assert scores.dtype == torch.float32
    assert 0 < error < 0.5 * (exact - exact.bfloat16()).abs().max()  # that of one product alone


def test_window_beyond_the_segment_is_refused(pairs):
    with pytest.raises(ValueError, match=r"clip\.tmin"):
        scores(pairs, window=(5.0, None))


# Losses


def test_duplicates_are_negatives_unless_told_otherwise(pairs, alike):
    assert torch.equal(ClipLoss()(*pairs, alike=alike), ClipLoss()(*pairs))


def test_masked_duplicates_are_as_if_they_werent_there(pairs, alike):
    of_pairs = by_hand(pairs, lambda x: x)
    of_pairs[alike.numpy() & ~np.eye(N, V, dtype=bool)] = -np.inf
    expected = cross_entropy(of_pairs, np.eye(N, V, dtype=bool))
    loss = ClipLoss(duplicates="mask")(*pairs, alike=alike)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_positive_duplicates_share_the_probability(pairs, alike):
    expected = cross_entropy(by_hand(pairs, lambda x: x), alike.numpy())
    loss = ClipLoss(duplicates="positive")(*pairs, alike=alike)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("duplicates", ["mask", "positive"])
def test_without_duplicates_they_make_no_difference(pairs, duplicates):
    plain = ClipLoss()(*pairs).item()
    assert ClipLoss(duplicates=duplicates)(*pairs).item() == pytest.approx(plain, rel=1e-6)


def test_symmetric_loss_is_the_mean_of_both_directions(pairs):
    of_pairs, truth = by_hand(pairs, lambda x: x), np.eye(N, V, dtype=bool)
    back = cross_entropy(of_pairs[:, :N].T, truth[:, :N].T)
    expected = (cross_entropy(of_pairs, truth) + back) / 2
    assert ClipLoss(symmetric=True)(*pairs).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("duplicates", ["keep", "mask", "positive"])
def test_sigmoid_loss_judges_each_pair(pairs, alike, duplicates):
    of_pairs = by_hand(pairs, lambda x: x) - 10
    total = 0.0
    for i in range(N):
        for j in range(V):
            same = bool(alike[i, j]) and duplicates != "keep"
            if same and i != j and duplicates == "mask":
                continue
            sign = 1 if i == j or same else -1
            total += math.log1p(math.exp(-sign * of_pairs[i, j]))
    loss = ClipLoss(duplicates=duplicates, objective="sigmoid")
    assert loss(*pairs, alike=alike).item() == pytest.approx(total / N, rel=1e-5)


def test_choices_that_dont_exist_or_dont_go_together_are_refused():
    with pytest.raises(ValueError, match="one of keep, mask, positive"):
        ClipLoss(duplicates="drop")
    with pytest.raises(ValueError, match="symmetric already"):
        ClipLoss(symmetric=True, objective="sigmoid")


def test_spectral_penalty_is_the_sum_of_squared_largest_singular_values():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5), nn.ConvTranspose1d(5, 2, 2))
    first = np.linalg.svd(model[0].weight.detach().reshape(5, 12).numpy())[1].max()
    last = model[2].weight.detach().transpose(0, 1).reshape(2, 10)
    expected = first**2 + np.linalg.svd(last.numpy())[1].max() ** 2
    penalty = spectral_penalty(model)
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    penalty.backward()
    assert all(one.weight.grad.abs().sum() > 0 for one in (model[0], model[2]))
    with pytest.raises(ValueError, match="has none"):
        spectral_penalty(nn.Linear(2, 2))
