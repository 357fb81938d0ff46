"""Contrastive and regression losses: published numbers, slow references, masks."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from bm.losses import EPSILON, ClipLoss, RegressionLoss


@pytest.fixture(scope="module")
def golden(root) -> dict[str, Tensor]:
    with np.load(root / "tests" / "golden" / "published_numbers.npz") as numbers:
        return {name: torch.from_numpy(numbers[name]) for name in numbers if "clip/" in name}


@pytest.fixture
def pairs() -> Iterator[tuple[Tensor, Tensor]]:
    """Estimates of 4 segments and 6 candidates, [., 3, 5]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 5, generator=generator), torch.randn(6, 3, 5, generator=generator)


def reference_scores(estimates: Tensor, candidates: Tensor) -> np.ndarray:
    """Inner products over the norm of the candidate, one number after the other."""
    scores = np.zeros((len(estimates), len(candidates)))
    for i, estimate in enumerate(estimates.double().numpy()):
        for j, candidate in enumerate(candidates.double().numpy()):
            product = sum(a * b for a, b in zip(estimate.flat, candidate.flat, strict=True))
            scores[i, j] = product / (math.sqrt(sum(b * b for b in candidate.flat)) + EPSILON)
    return scores


def reference_loss(scores: np.ndarray) -> float:
    """Mean of -log probability of the truth, candidate i of estimate i."""
    losses = [math.log(np.exp(row).sum()) - row[i] for i, row in enumerate(scores)]
    return sum(losses) / len(losses)


def test_scores_probabilities_and_loss_are_the_published_ones(golden):
    loss = ClipLoss()
    estimate, candidate = golden["clip/estimate"], golden["clip/candidate"]
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(loss.scores(estimate, candidate), golden["clip/scores"], **close)
    probabilities = loss.probabilities(estimate, candidate)
    torch.testing.assert_close(probabilities, golden["clip/probabilities"], **close)
    torch.testing.assert_close(loss(estimate, candidate), golden["clip/loss"], **close)


def test_scores_and_loss_are_those_of_the_formula(pairs):
    estimates, candidates = pairs
    loss = ClipLoss()
    expected = reference_scores(estimates, candidates)
    np.testing.assert_allclose(loss.scores(estimates, candidates), expected, rtol=1e-5, atol=1e-6)
    assert loss(estimates, candidates).item() == pytest.approx(reference_loss(expected), rel=1e-5)
    exponentials = np.exp(expected)
    np.testing.assert_allclose(
        loss.probabilities(estimates, candidates),
        exponentials / exponentials.sum(axis=1, keepdims=True),
        rtol=1e-4,
    )


def test_only_candidates_are_normalised(pairs):
    estimates, candidates = pairs
    scores = ClipLoss().scores(estimates, candidates)
    torch.testing.assert_close(ClipLoss().scores(estimates, 7 * candidates), scores)
    torch.testing.assert_close(ClipLoss().scores(7 * estimates, candidates), 7 * scores)


def test_silent_candidate_scores_nothing_and_gives_no_nan(pairs):
    estimates, candidates = pairs
    candidates[2] = 0
    estimates.requires_grad_()
    scores = ClipLoss().scores(estimates, candidates)
    assert (scores[:, 2] == 0).all()
    ClipLoss()(estimates, candidates).backward()
    assert estimates.grad.isfinite().all()


def test_loss_goes_from_brain_to_sound_only(pairs):
    estimates, candidates = pairs
    more = ClipLoss()(estimates, candidates)
    fewer = ClipLoss()(estimates, candidates[:4])
    assert more > fewer  # further candidates are negatives
    scores = torch.from_numpy(reference_scores(estimates, candidates[:4]))
    other_way = torch.nn.functional.cross_entropy(scores.T, torch.arange(4)).item()
    assert abs(fewer.item() - other_way) > 1e-3


def test_guessing_costs_the_logarithm_of_the_number_of_candidates(pairs):
    _, candidates = pairs
    assert ClipLoss()(torch.zeros(4, 3, 5), candidates).item() == pytest.approx(math.log(6))


def test_masked_samples_have_no_influence(pairs):
    estimates, candidates = pairs
    mask = torch.ones(4, 1, 5)
    mask[:, :, 3:] = 0
    other = estimates.clone()
    other[:, :, 3:] = 1e3
    loss = ClipLoss()
    assert torch.equal(loss(estimates, candidates, mask), loss(other, candidates, mask))
    expected = reference_loss(reference_scores(estimates * mask, candidates))
    assert loss(estimates, candidates, mask).item() == pytest.approx(expected, rel=1e-5)
    everywhere = loss(estimates, candidates, torch.ones(4, 1, 5))
    assert torch.equal(everywhere, loss(estimates, candidates))


def test_estimates_and_candidates_of_other_shapes_are_refused(pairs):
    estimates, candidates = pairs
    with pytest.raises(ValueError, match=r"\(4, 3, 5\) and candidates \(6, 3, 4\) must have"):
        ClipLoss()(estimates, candidates[..., :4])
    with pytest.raises(ValueError, match=r"\(4, 3, 5\) and candidates \(6, 1, 5\) must have"):
        RegressionLoss(1)(estimates, candidates[:, :1])


@pytest.mark.parametrize("power", [1, 2])
def test_regression_loss_is_the_mean_difference(pairs, power):
    estimates, candidates = pairs
    differences = [
        abs(a - b) ** power
        for a, b in zip(
            estimates.flatten().tolist(), candidates[:4].flatten().tolist(), strict=True
        )
    ]
    loss = RegressionLoss(power)
    assert loss(estimates, candidates).item() == pytest.approx(sum(differences) / 60, rel=1e-5)
    assert loss(estimates, estimates).item() == 0


@pytest.mark.parametrize("power", [1, 2])
def test_regression_loss_counts_unmasked_samples_only(pairs, power):
    estimates, candidates = pairs
    mask = torch.zeros(4, 1, 5, dtype=torch.bool)
    mask[0, :, 1] = mask[2, :, 4] = True
    loss = RegressionLoss(power)(estimates, candidates, mask.float())
    kept = torch.cat([(estimates - candidates[:4])[0, :, 1], (estimates - candidates[:4])[2, :, 4]])
    assert loss.item() == pytest.approx((kept.abs() ** power).mean().item(), rel=1e-5)
    assert RegressionLoss(power)(estimates, candidates, torch.zeros(4, 1, 5)).item() == 0
