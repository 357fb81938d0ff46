"""A trained model is fitted to a simulated listener that it has never met."""

from pathlib import Path

import pytest
import torch

from bm import play
from bm.build import build_solver
from bm.calibration import PER_SUBJECT, Calibration, calibrate, welcome
from bm.checkpoint import CHECKPOINT, read_checkpoint, write_checkpoint
from bm.config import from_dict, from_hydra
from bm.decoder import Stimulus, from_sound
from bm.solver import Solver
from bm.train import main as experiment

SETTINGS = [
    "preset=demo", "dset.selections=[fake]", "+selections.fake.n_subjects=4",
    "+selections.fake.n_minutes=6", "dset.features_params.MelSpectrum.n_mels=12",
    "simpleconv.hidden.meg=24", "simpleconv.merger_channels=16", "simpleconv.merger_pos_dim=32",
    "simpleconv.initial_linear=16", "simpleconv.depth=4", "simpleconv.dilation_period=2",
    "optim.batch_size=64", "optim.epochs=5", "optim.lr=2e-3",
]  # fmt: skip
NEWCOMER = ["dset.skip_recordings=3", "dset.n_recordings=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model of three simulated listeners."""
    path = tmp_path_factory.mktemp("trained")
    arguments = [*SETTINGS, "dset.n_recordings=3", f"cache={path / 'cache'}"]
    build_solver(from_hydra(experiment.get_xp(arguments).cfg), path).run()
    return path


@pytest.fixture
def newcomer(folder: Path) -> Solver:
    """Of the fourth listener, nothing learned yet."""
    arguments = [*SETTINGS, *NEWCOMER, f"cache={folder / 'cache'}"]
    return build_solver(from_hydra(experiment.get_xp(arguments).cfg))


def loss_of(solver: Solver) -> float:
    """Contrastive loss of the best state, all test segments being candidates."""
    with torch.no_grad(), solver.best():
        test = solver.splits.datasets["test"]
        prediction = solver.predict(test.gather(torch.arange(len(test))))
        return solver.loss(prediction.estimate, prediction.target).item()


def test_three_minutes_of_a_new_subject_beat_the_mean_of_the_others(folder, newcomer):
    welcome(newcomer, read_checkpoint(folder / CHECKPOINT), minutes=3)
    train = newcomer.splits.datasets["train"].table
    assert train["time"].max() - train["time"].min() < 180
    assert newcomer.splits.subjects == ["fake/simulated-04"]
    mean, loss_of_mean = newcomer.retrieve(), loss_of(newcomer)
    fitted = play.get_calibrated_solver(folder, NEWCOMER, minutes=3)
    calibrated = fitted.retrieve()
    assert calibrated.n_candidates == mean.n_candidates > 100
    assert calibrated.accuracy(10) > mean.accuracy(10) + 0.05
    assert calibrated.accuracy(1) > mean.accuracy(1) + 0.05
    assert loss_of(fitted) < 0.7 * loss_of_mean


def test_model_on_its_own_is_calibrated_to_three_minutes_of_a_new_recording(folder, newcomer):
    """Judged on sentences that nobody heard in training, in sound that isn't calibrated on."""
    item, decoder = newcomer.splits.prepared[0], play.load(folder)
    reading = decoder.read(item.recording.raw())
    first, second = item.recording.events().query("kind == 'sound'").itertuples()
    unheard = item.blocks[item.blocks["split"] == "test"]
    stimulus = from_sound(second.filepath, decoder.window.duration, step=0.25)
    begins = second.start + stimulus.candidates["begin"].to_numpy()
    stops = unheard["start"] + unheard["duration"] - decoder.window.duration
    inside = [((unheard["start"] <= one) & (one < stops)).any() for one in begins]
    stimulus = Stimulus(stimulus.events, stimulus.candidates[inside].reset_index(drop=True))

    def accuracy() -> float:
        ranking = decoder.rank(reading, stimulus, begins[inside].tolist(), onset=second.start)
        assert ranking.n_judged == len(stimulus.candidates) > 80
        return ranking.accuracy(10)

    mean = accuracy()
    heard = from_sound(first.filepath, decoder.window.duration)
    before = {name: value.clone() for name, value in decoder.models.state_dict().items()}
    losses = decoder.calibrate(reading, heard, first.start, minutes=3)
    changed = [
        (name, value)
        for name, value in decoder.models.state_dict().items()
        if not torch.equal(before[name], value)
    ]
    assert [name for name, _ in changed] == ["meg.subject_layers.weights"]
    assert torch.equal(changed[0][1][:3], before["meg.subject_layers.weights"][:3])
    assert losses[-1] < 0.3 * losses[0]
    calibrated = accuracy()
    assert calibrated > mean + 0.2, (mean, calibrated)


def test_newcomer_begins_with_the_mean_and_the_trained_scale_of_features(folder, newcomer):
    state = read_checkpoint(folder / CHECKPOINT)
    own = newcomer.scaler.centre.clone()
    welcome(newcomer, state)
    (name,) = [name for name in PER_SUBJECT if name in state["best_state"]]
    expected = state["best_state"][name].mean(dim=0, keepdim=True)
    assert state["best_state"][name].shape == (3, 16, 16)
    torch.testing.assert_close(newcomer.best_state[name], expected)
    assert torch.equal(newcomer.scaler.feature_scale, state["scaler"]["feature_scale"])
    assert torch.equal(newcomer.scaler.centre, own)  # the brain's own
    welcome(newcomer, state, minutes=2)
    assert not torch.equal(newcomer.scaler.centre, own)  # of what is known after two minutes


def test_only_the_layer_of_the_subject_is_fitted(folder, newcomer):
    welcome(newcomer, read_checkpoint(folder / CHECKPOINT))
    before = newcomer.best_state
    losses = calibrate(newcomer, Calibration(n_steps=3, batch_size=32))
    assert len(losses) == 3
    changed = [
        name for name, value in before.items() if not torch.equal(value, newcomer.best_state[name])
    ]
    assert changed == ["meg.subject_layers.weights"]
    assert all(parameter.requires_grad for parameter in newcomer.models.parameters())
    assert all(
        parameter.grad is None
        for name, parameter in newcomer.models.named_parameters()
        if name not in PER_SUBJECT
    )


def test_spare_rooms_for_subjects_are_not_part_of_the_mean(folder, newcomer):
    state = read_checkpoint(folder / CHECKPOINT)
    name = "meg.subject_layers.weights"
    expected = state["best_state"][name].mean(dim=0, keepdim=True)
    spare = torch.full((2, 16, 16), 100.0)
    state["best_state"][name] = torch.cat([state["best_state"][name], spare])
    welcome(newcomer, state)
    torch.testing.assert_close(newcomer.best_state[name], expected)


def test_what_can_not_be_calibrated_is_told(folder, newcomer, tmp_path):
    state = read_checkpoint(folder / CHECKPOINT)
    with pytest.raises(ValueError, match=r"minutes=-1.* no training segments"):
        welcome(newcomer, state, minutes=-1)
    with pytest.raises(ValueError, match="at least 1 step"):
        calibrate(newcomer, Calibration(n_steps=0))
    others = {**state, "best_state": {**state["best_state"], "meg.more": torch.ones(1)}}
    with pytest.raises(ValueError, match=r"doesn't fit these recordings(?s:.)*meg\.more"):
        welcome(newcomer, others)
    values = {**state["config"], "simpleconv": {**state["config"]["simpleconv"]}}
    values["simpleconv"]["subject_layers"] = False
    alike = build_solver(from_dict(values), tmp_path)
    write_checkpoint(tmp_path / "alike.pt", alike.state_dict())
    with pytest.raises(ValueError, match="nothing of its own for each subject"):
        play.get_calibrated_solver(tmp_path / "alike.pt", NEWCOMER)
