"""A batch run in parts gives the gradients of the whole batch."""

import pytest
import torch
from torch import nn

from bm.accumulation import backward_in_parts
from bm.losses import ClipLoss
from bm.training import Training


class Pair(nn.ModuleDict):
    """A model of the signal and one of the target."""

    def __init__(self, dropout: float = 0.0, norm: bool = False):
        torch.manual_seed(0)
        layers = [nn.Conv1d(3, 4, 3, padding=1), nn.Dropout(dropout)]
        layers += [nn.BatchNorm1d(4)] if norm else []
        super().__init__({"meg": nn.Sequential(*layers), "features": nn.Conv1d(5, 4, 1)})
        self.double()

    def forward(self, part):
        meg, features = part
        return self["meg"](meg), self["features"](features)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    shapes = ((7, 3, 20), (7, 5, 20))
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def parts_of(batch, n):
    return list(zip(*(tensor.split(n) for tensor in batch), strict=True))


def gradients(models):
    return [parameter.grad for parameter in models.parameters()]


@pytest.mark.parametrize("n", [1, 3, 7])
def test_gradients_are_those_of_the_whole_batch_with_all_its_negatives(batch, n):
    whole, divided = Pair(), Pair()
    loss = ClipLoss()(*whole(batch))
    (0.5 * loss).backward()
    value = backward_in_parts(parts_of(batch, n), divided, ClipLoss(), divided, 0.5)
    assert value.item() == pytest.approx(loss.item(), rel=1e-12)
    for mine, expected in zip(gradients(divided), gradients(whole), strict=True):
        torch.testing.assert_close(mine, expected)


def test_separate_losses_of_the_parts_would_be_another_gradient(batch):
    whole, separate = Pair(), Pair()
    ClipLoss()(*whole(batch)).backward()
    for part in parts_of(batch, 3):
        (ClipLoss()(*separate(part)) * len(part[0]) / 7).backward()
    difference = gradients(separate)[0] - gradients(whole)[0]
    assert difference.norm() > 0.05 * gradients(whole)[0].norm()


def test_dropout_falls_on_the_same_places_in_both_runs(batch):
    torch.manual_seed(5)
    divided = Pair(dropout=0.5)
    state = torch.get_rng_state()
    value = backward_in_parts(parts_of(batch, 3), divided, ClipLoss(), divided)
    torch.set_rng_state(state)
    reference = Pair(dropout=0.5)
    torch.set_rng_state(state)
    outputs = [reference(part) for part in parts_of(batch, 3)]
    loss = ClipLoss()(*map(torch.cat, zip(*outputs, strict=True)))
    loss.backward()
    assert value.item() == pytest.approx(loss.item(), rel=1e-12)
    for mine, expected in zip(gradients(divided), gradients(reference), strict=True):
        torch.testing.assert_close(mine, expected)


def test_running_statistics_see_each_part_once(batch):
    divided, reference = Pair(norm=True), Pair(norm=True)
    backward_in_parts(parts_of(batch, 3), divided, ClipLoss(), divided)
    for part in parts_of(batch, 3):
        reference(part)
    for mine, expected in zip(divided.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(mine, expected)


def test_activations_of_one_part_are_held_at_a_time(batch):
    held = []

    def note(tensor):
        held.append(len(tensor))
        return tensor

    divided = Pair()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        backward_in_parts(parts_of(batch, 2), divided, lambda a, b: (a * b).sum(), divided)
    of_parts = [n for n in held if n <= 2]
    assert of_parts
    assert max(n for n in held if n != 7) <= 5  # weights have 4 or 5 rows, parts 2, the loss 7


def test_a_part_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"optim\.micro_batch=0 must be at least 1"):
        Training(1, 8, 120.0, micro_batch=0)
