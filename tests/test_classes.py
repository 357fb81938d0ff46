"""Features that are classes: loss, weights, accuracy, from the configuration to the history."""

import math

import pytest
import torch
from ranks import build
from small_splits import make_dataset
from torch.nn import functional

from bm.classes import Columns, RegressionClassificationLoss, class_accuracy
from bm.models import OneHot
from bm.segments import Prediction, SegmentBatch

COLUMNS = [Columns("A", 0, 2, False), Columns("B", 2, 3, True)]
SETTINGS = [
    "model=decoder_convrnn",
    "convrnn.hidden.meg=16",
    "convrnn.lstm=1",
    "convrnn.subject_dim=4",
    "dset.selections=[fake]",
    "+selections.fake.n_minutes=4",
    "dset.features=[MelSpectrum,WordSegment]",
    "dset.features_params.MelSpectrum.n_mels=5",
    "dset.sample_rate=60",
    "dset.block_grouping=stimulus_time",
    "optim.batch_size=16",
    "optim.epochs=2",
    "device=cpu",
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return [*SETTINGS, f"cache={tmp_path_factory.mktemp('cache')}"]


@pytest.fixture
def pair():
    """Estimates and targets of 4 segments: two values, and one of three classes."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (4, 1, 6), generator=generator)
    targets = OneHot(2, 3)(torch.cat([values[1][:, :2], labels], dim=1))
    return values[0], targets, labels


def test_one_hot_replaces_a_label_between_other_features():
    x = torch.tensor([[[0.5, 0.6], [2.0, 0.0], [7.0, 8.0]]])
    expected = [[0.5, 0.6], [0, 1], [0, 0], [1, 0], [7, 8]]
    assert torch.equal(OneHot(1, 3)(x)[0], torch.tensor(expected))


@pytest.mark.parametrize("masked", [False, True])
def test_loss_is_the_mean_of_l1_and_weighted_cross_entropy(pair, masked):
    estimates, targets, labels = pair
    loss = RegressionClassificationLoss(COLUMNS).double()
    loss.weights[2:] = torch.tensor([0.5, 2.0, 1.0])
    mask = torch.ones(4, 1, 6, dtype=torch.float64)
    if masked:
        mask[:, :, 4:] = 0
    n = 4 if masked else 6
    l1 = (estimates[:, :2, :n] - targets[:, :2, :n]).abs().mean()
    weights = loss.weights[2:]
    entropy = functional.cross_entropy(estimates[:, 2:, :n], labels[:, 0, :n], weights)
    value = loss(estimates, targets, mask if masked else None)
    torch.testing.assert_close(value, (l1 + entropy) / 2)
    others = torch.cat([targets, targets.flip(0)])  # candidates of other ranks
    torch.testing.assert_close(loss(estimates, others, mask), value)


def test_weights_are_the_inverse_share_of_each_class():
    words = [[("s", index, "w") for index in range(5)]]
    train = make_dataset(words)
    table = train.stimuli.rows[0]
    labels = torch.arange(len(table)) % 2  # of 21 rows; silence, row 0, is in no segment
    labels[1:4] = 3
    table[:, 0] = labels
    loss = RegressionClassificationLoss([Columns("B", 0, 4, True)])
    loss.weigh(train)
    counts = torch.bincount(labels[1:], minlength=4)
    assert counts.tolist() == [9, 8, 0, 3]
    expected = [20 / (3 * 9), 20 / (3 * 8), 0, 20 / (3 * 3)]
    assert loss.weights.tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="none of A"):
        RegressionClassificationLoss(COLUMNS[:1]).weigh(train)


def test_accuracy_counts_samples_and_classes():
    labels = torch.tensor([[[0, 0, 0, 0, 0, 1, 1, 2]]])
    told = torch.tensor([[[0, 0, 0, 0, 1, 1, 0, 2]]])
    one_hot = OneHot(0, 3)
    batch = SegmentBatch(*[torch.zeros(1)] * 7)

    def predict(_: SegmentBatch) -> Prediction:
        return Prediction(one_hot(told).double(), one_hot(labels).double(), torch.zeros(1))

    found = class_accuracy([batch, batch], predict, [Columns("B", 0, 3, True)])
    assert found["B_accuracy"] == pytest.approx(6 / 8)
    assert found["B_macro_accuracy"] == pytest.approx((4 / 5 + 1 / 2 + 1) / 3)


def test_published_decoder_learns_when_words_are_heard(settings):
    solver = build([*settings, "optim.use_weighting=true", "optim.lr=3e-3"])
    assert [(one.name, one.n, one.is_class) for one in solver.loss.columns] == [
        ("MelSpectrum", 5, False), ("WordSegment", 2, True),
    ]  # fmt: skip
    silent, heard = solver.loss.weights[5:].tolist()
    assert 1 / silent + 1 / heard == pytest.approx(2, rel=1e-5)
    history = solver.run()
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]
    test = history[-1]["test"]
    assert 0.55 < test["WordSegment_macro_accuracy"] <= 1
    assert math.isfinite(test["segment_top10"])


def test_weighting_without_classes_and_mixed_classes_are_refused(settings):
    with pytest.raises(ValueError, match=r"optim\.use_weighting=true .* not l1"):
        build([*settings, "optim.use_weighting=true", "optim.loss=l1"])
    with pytest.raises(ValueError, match="deep_mel mixes features"):
        build([*settings, "feature_model=deep_mel"])
