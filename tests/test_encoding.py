"""Predicting brain signals from features: what is given, what counts, what is learned."""

import pytest
import torch
from ranks import build

from bm.encoding import signal_metrics
from bm.segments import Prediction, SegmentBatch

SETTINGS = [
    "model=convrnn",
    "convrnn.hidden.meg=16",
    "convrnn.hidden.features=16",
    "convrnn.lstm=1",
    "convrnn.subject_dim=4",
    "dset.selections=[fake]",
    "+selections.fake.n_minutes=4",
    "dset.features=[MelSpectrum]",
    "dset.features_params.MelSpectrum.n_mels=16",
    "dset.sample_rate=60",
    "dset.block_grouping=stimulus_time",
    "task.meg_init=0.5",
    "optim.batch_size=16",
    "optim.epochs=6",
    "optim.lr=3e-3",
    "device=cpu",
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return [*SETTINGS, f"cache={tmp_path_factory.mktemp('cache')}"]


def first_batch(solver):
    return solver.splits.datasets["train"].gather(torch.arange(4))


def test_only_the_first_moments_of_the_signal_go_in_and_the_rest_counts(settings):
    solver = build([*settings, "task.mask_loss=true", "task.offset_meg_ms=100"])
    solver.models.eval()
    batch = solver.scaler(first_batch(solver))
    prediction, mask = solver._forward(batch)
    n_times, n_delay, n_given = 181, 6, 30
    assert prediction.estimate.shape == (4, 16, n_times - n_delay - n_given)
    assert torch.equal(prediction.target, batch.meg[..., n_delay + n_given :])
    assert torch.equal(mask, batch.mask[..., n_given : n_times - n_delay].float())

    def with_noise(from_sample, to_sample):
        changed = solver.scaler(first_batch(solver))
        changed.meg[..., from_sample:to_sample] += 1
        return solver._forward(changed)[0].estimate

    assert torch.equal(with_noise(n_delay + n_given, n_times), prediction.estimate)
    assert torch.equal(with_noise(0, n_delay), prediction.estimate)
    assert not torch.equal(with_noise(n_delay, n_delay + n_given), prediction.estimate)
    changed = solver.scaler(first_batch(solver))
    changed.features[..., 100] += 1
    assert not torch.equal(solver._forward(changed)[0].estimate, prediction.estimate)


def test_sound_predicts_the_simulated_response(settings):
    solver = build(settings)
    untrained = solver.test()
    history = solver.run()
    test = history[solver.tested_epoch]["test"]
    assert set(test) == {"correlation", "l1", "l2"}
    assert abs(untrained["correlation"]) < 0.05
    assert test["correlation"] > 0.15
    assert test["l1"] < untrained["l1"]
    found = solver.sensor_map()
    assert found.weights.mean() == pytest.approx(test["correlation"])
    assert found.weights.shape == (16,) == (len(found.names),)
    assert not solver.is_testing
    with pytest.raises(ValueError, match="can't be retrieved"):
        solver.retrieve()
    with pytest.raises(ValueError, match="can't be retrieved"):
        solver.estimate(first_batch(solver))


@pytest.mark.parametrize(("gt", "gt_test"), [(True, False), (False, True)])
def test_low_pass_takes_fast_changes_out_of_predictions_and_of_the_truth_where_told(
    settings, monkeypatch, gt, gt_test
):
    flags = [f"task.lowpass_gt={gt}".lower(), f"task.lowpass_gt_test={gt_test}".lower()]
    solver = build([*settings, "task.lowpass=5", *flags])
    batch = first_batch(solver)
    scaled = solver.scaler(batch)
    times = torch.arange(181) / 60
    slow, fast = torch.sin(2 * torch.pi * 2 * times), torch.sin(2 * torch.pi * 20 * times)
    scaled.meg[:] = slow + fast
    monkeypatch.setattr(solver.model, "forward", lambda *_: (slow + fast).expand(4, 16, 181))
    asked = {}
    for solver.is_testing in (False, True):
        prediction, _ = solver._forward(scaled)
        inner = prediction.estimate[..., 30:-60] - slow[60:-60]
        assert inner.abs().max() < 0.05
        asked[solver.is_testing] = prediction.target[..., 30:-60] - slow[60:-60]
    for is_testing, is_filtered in ((False, gt), (True, gt_test)):
        assert (asked[is_testing].abs().max() < 0.05) == is_filtered
    solver.is_testing = False
    seen = []
    predict = solver._forward
    monkeypatch.setattr(
        solver, "_forward", lambda one: seen.append(solver.is_testing) or predict(one)
    )
    monkeypatch.setattr(
        solver.model, "forward", lambda meg, *_: torch.zeros_like(meg) + slow.to(meg)
    )
    solver.test()
    solver._validate()
    assert set(seen[:1]) == {True}
    assert not seen[-1]


def test_metrics_are_those_of_all_samples_of_each_sensor():
    generator = torch.Generator().manual_seed(0)
    estimate, target = torch.randn(2, 6, 3, 10, generator=generator, dtype=torch.float64)
    target[:, 2] = 1.0  # a sensor that never changes

    def predict(batch: SegmentBatch) -> Prediction:
        return Prediction(estimate[batch.row], target[batch.row], batch.row)

    nothing = torch.zeros(0)
    batches = [SegmentBatch(*[nothing] * 6, rows) for rows in torch.arange(6).split(4)]
    found = signal_metrics(batches, predict)
    correlations = [
        torch.corrcoef(torch.stack([estimate[:, one].flatten(), target[:, one].flatten()]))[0, 1]
        for one in (0, 1)
    ]
    difference = estimate - target
    assert found["correlation"] == pytest.approx(float(sum(correlations)) / 2)
    assert found["l1"] == pytest.approx(difference.abs().mean().item())
    assert found["l2"] == pytest.approx(difference.square().mean().item())


def test_what_encoding_cannot_do_is_refused(settings):
    with pytest.raises(ValueError, match=r"task\.meg_init=9\.0 s is 540 samples"):
        build([*settings, "task.meg_init=9.0"])
    with pytest.raises(ValueError, match=r"task\.lowpass=30\.0 must be below half"):
        build([*settings, "task.lowpass=30"])
    with pytest.raises(ValueError, match=r"task\.lowpass=8\.0 filters predicted brain signals"):
        build([*settings, "task.lowpass=8", "task.type=decode"])
    with pytest.raises(ValueError, match=r"optim\.loss=clip is for decoding"):
        build([*settings, "optim.loss=clip", "task.loss=null"])
