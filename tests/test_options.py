"""No dead options: every key of the configuration changes what is built, or raises when set."""

import dataclasses
import hashlib
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from helpers import SmallRecording, tell_story, with_value
from torch import nn

import bm.build
import bm.objective
import bm.solver
from bm.build import Data, build_data, build_recordings, build_solver, build_training, choose_device
from bm.checkpoint import CHECKPOINT
from bm.config import UNSUPPORTED, Config, default_leaves, from_dict, from_hydra, to_dict
from bm.core.messages import DataError
from bm.losses import ClipLoss
from bm.recordings import Recording
from bm.solver import Solver, Training
from bm.studies import Study, registry
from bm.train import main, next_steps

BASE = {
    "device": "cpu",
    "selections.small": {"study": "small"},
    "dset.selections": ["small"],
    "dset.features": ["MelSpectrum"],
    "dset.features_params.MelSpectrum.n_mels": 8,
    "dset.event_mask": True,
    "simpleconv.hidden.meg": 6,
    "simpleconv.depth": 4,
    "simpleconv.initial_linear": 5,
    "simpleconv.merger_channels": 5,
    "simpleconv.merger_pos_dim": 8,
}
DEEP_MEL = {
    "feature_model_name": "deep_mel",
    "feature_model_params": {"n_hidden_channels": 4, "n_hidden_layers": 3, "n_out_channels": 7},
}
RELU = {"simpleconv.gelu": False}
EMBEDDING = {"simpleconv.subject_dim": 3}
CONV_RNN = {
    "model_name": "convrnn",
    "convrnn.hidden.meg": 7,
    "convrnn.lstm": 2,
    "convrnn.subject_dim": 3,
}
ENCODE = {
    **CONV_RNN,
    "task.type": "encode",
    "optim.loss": "l1",
    "convrnn.hidden.features": 4,
}
NO_HEAD = {"simpleconv.complex_out": False}

# Key: another value, and what has to be set beside it for the key to matter.
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "num_prints": (3, {}),
    "seed": (7, {}),
    "early_stop_patience": (3, {}),
    "eval_every": (2, {}),
    "override_n_subjects_model": (9, {}),
    "feature_model_name": ("deep_mel", {**DEEP_MEL, "feature_model_name": None}),
    "feature_model_params": ({**DEEP_MEL["feature_model_params"], "glu": 0}, DEEP_MEL),
    "optim.name": ("adamw", {}),
    "optim.weight_decay": (0.1, {"optim.name": "adamw"}),
    "optim.schedule": ("cosine", {}),
    "optim.warmup": (0.5, {}),
    "optim.max_gradient_norm": (1.0, {}),
    "optim.ema": (0.9, {}),
    "optim.on_bad_loss": ("skip", {}),
    "optim.lr": (1e-2, {}),
    "optim.beta2": (0.9, {}),
    "optim.epochs": (3, {}),
    "optim.batch_size": (16, {}),
    "optim.loss": ("mse", {}),
    "optim.use_weighting": (
        True,
        {"optim.loss": "regression_classification", "dset.features": ["WordSegment"]},
    ),
    "optim.max_batches": (3, {}),
    "optim.precision": ("bf16", {}),
    "optim.compile": (True, {}),
    "optim.micro_batch": (5, {}),
    "optim.svd": (0.1, {}),
    "optim.negatives": (5, {}),
    "optim.negative_pool_size": (6, {"optim.negatives": 5}),
    "optim.negatives_scope": ("all", {}),
    "clip.linear": (3, {}),
    "clip.twin": (False, {"clip.linear": 3}),
    "clip.pool": (True, {}),
    "clip.tmin": (0.5, {}),
    "clip.tmax": (1.5, {}),
    "clip.tmin_train": (0.5, {}),
    "clip.tmax_train": (1.5, {}),
    "clip.center": (True, {}),
    "clip.normalise": ("both", {}),
    "clip.temperature": (True, {}),
    "clip.duplicates": ("mask", {}),
    "clip.symmetric": (True, {}),
    "clip.objective": ("sigmoid", {}),
    "optim.batch_norm_scope": ("all", {}),
    "test.wer_negatives": (100, {}),
    "test.wer_topx": (5, {}),
    "test.wer_random": (True, {}),
    "test.wer_recordings": (2, {}),
    "test.wer_study": ("small", {}),
    "dset.selections": (["small", "other"], {}),
    "dset.tmin": (-0.3, {}),
    "dset.tmax": (2.0, {}),
    "dset.n_recordings": (2, {}),
    "dset.n_subjects": (1, {}),
    "dset.n_subjects_test": (1, {}),
    "dset.shuffle_recordings_seed": (1, {}),
    "dset.skip_recordings": (1, {}),
    "dset.test_ratio": (0.4, {}),
    "dset.valid_ratio": (0.3, {}),
    "dset.remove_ratio": (0.3, {}),
    "dset.condition": (1.0, {}),
    "dset.apply_baseline": (False, {}),
    "dset.min_block_duration": (20.0, {}),
    "dset.force_uid_assignement": (True, {}),
    "dset.min_n_blocks_per_split": (50, {}),
    "dset.ignore_end_in_block": (True, {}),
    "dset.ignore_start_in_block": (True, {}),
    "dset.sample_rate": (60.0, {}),
    "dset.highpass": (1.0, {}),
    "dset.event_mask": (False, {}),
    "dset.split_wav_as_block": (False, {}),
    "dset.allow_empty_split": (True, {"dset.test.condition": 'word == "absent"'}),
    "dset.autoreject": (True, {}),
    "dset.test.tmin": (-0.3, {}),
    "dset.test.tmax": (2.0, {}),
    "dset.test.condition": (None, {}),
    "dset.features": (["WordHash"], {"optim.loss": "mse"}),
    "dset.extra_test_features": (["WordHash"], {}),
    "dset.features_params": ({"MelSpectrum": {"n_mels": 9}}, {}),
    "dset.bandpass": ([1.0, 20.0], {}),
    "dset.notch": (50.0, {}),
    "dset.block_grouping": ("stimulus_time", {}),
    "dset.residency": ("disk", {"dset.residency": "host"}),
    "dset.storage": ("fp16", {}),
    "dset.on_bad_recording": ("error", {"dset.selections": ["small", "broken"]}),
    "dset.control": ("noise", {}),
    "dset.sensor_dimensions": (3, {"simpleconv.merger_pos_dim": 128}),
    "norm.scaler.per_channel": (True, {}),
    "norm.scaler.n_samples_per_recording": (5, {}),
    "norm.scaler.n_samples_features": (5, {}),
    "norm.max_scale": (2.0, {}),
    "norm.clip": (False, {"norm.max_scale": 3.0}),
    "norm.exclude_empty_features": (True, {}),
    "task.offset_meg_ms": (100.0, {}),
    "task.mask_loss": (True, {}),
    "task.type": ("encode", {**ENCODE, "task.type": "decode"}),
    "task.meg_init": (0.4, ENCODE),
    "task.lowpass": (8.0, ENCODE),
    "task.lowpass_gt": (False, {**ENCODE, "task.lowpass": 8.0}),
    "task.lowpass_gt_test": (True, {**ENCODE, "task.lowpass": 8.0}),
    "simpleconv.hidden.meg": (8, {}),
    "simpleconv.depth": (2, {}),
    "simpleconv.linear_out": (True, NO_HEAD),
    "simpleconv.complex_out": (False, {}),
    "simpleconv.kernel_size": (5, {}),
    "simpleconv.dilation_growth": (3, {}),
    "simpleconv.dilation_period": (2, {}),
    "simpleconv.skip": (False, {}),
    "simpleconv.glu": (0, {}),
    "simpleconv.glu_context": (0, {}),
    "simpleconv.gelu": (False, {}),
    "simpleconv.conv_dropout": (0.5, {}),
    "simpleconv.dropout_input": (0.5, {}),
    "simpleconv.batch_norm": (False, {}),
    "simpleconv.relu_leakiness": (0.5, RELU),
    "simpleconv.subject_dim": (3, {}),
    "simpleconv.subject_layers": (False, {}),
    "simpleconv.embedding_scale": (10.0, EMBEDDING),
    "simpleconv.subject_layers_dim": ("hidden", {}),
    "simpleconv.subject_layers_id": (True, {}),
    "simpleconv.merger": (False, {}),
    "simpleconv.merger_pos_dim": (18, {}),
    "simpleconv.merger_channels": (7, {}),
    "simpleconv.merger_dropout": (0.4, {}),
    "simpleconv.initial_linear": (7, {}),
    "simpleconv.initial_depth": (2, {}),
    "simpleconv.initial_nonlin": (True, {}),
    "simpleconv.scale": (0.1, {}),
    "simpleconv.merger_per_subject": (True, {}),
    "simpleconv.dropout": (0.2, {}),
    "simpleconv.dropout_rescale": (False, {"simpleconv.dropout": 0.2}),
    "simpleconv.subsample_meg_channels": (3, {}),
    "simpleconv.unseen_subject_mean": (True, {}),
    "simpleconv.n_fft": (8, {}),
    "simpleconv.fft_complex": (False, {"simpleconv.n_fft": 8}),
    "simpleconv.dual_path": (1, {}),
    "simpleconv.transformer": (1, {"simpleconv.transformer_heads": 2}),
    "simpleconv.transformer_heads": (
        3,
        {"simpleconv.transformer": 1, "simpleconv.transformer_heads": 2},
    ),
    "encoder.target": ("small_models.OwnEncoder", {}),
    "encoder.params": ({"width": 9}, {"encoder.target": "small_models.OwnEncoder"}),
    "model_name": ("convrnn", {**CONV_RNN, "model_name": "simpleconv"}),
    "convrnn.hidden.meg": (8, CONV_RNN),
    "convrnn.depth": (1, CONV_RNN),
    "convrnn.linear_out": (True, CONV_RNN),
    "convrnn.complex_out": (True, CONV_RNN),
    "convrnn.kernel_size": (3, CONV_RNN),
    "convrnn.stride": (3, CONV_RNN),
    "convrnn.lstm": (1, CONV_RNN),
    "convrnn.bidirectional_lstm": (True, CONV_RNN),
    "convrnn.flip_lstm": (True, CONV_RNN),
    "convrnn.conv_dropout": (0.5, CONV_RNN),
    "convrnn.lstm_dropout": (0.5, CONV_RNN),
    "convrnn.dropout_input": (0.5, CONV_RNN),
    "convrnn.batch_norm": (True, CONV_RNN),
    "convrnn.relu_leakiness": (0.5, CONV_RNN),
    "convrnn.subject_dim": (4, CONV_RNN),
    "convrnn.embedding_location": (["input", "lstm"], CONV_RNN),
    "convrnn.embedding_scale": (10.0, CONV_RNN),
    "convrnn.subject_layers": (True, CONV_RNN),
    "convrnn.subject_layers_dim": ("hidden", {**CONV_RNN, "convrnn.subject_layers": True}),
}
ATTRIBUTES = (
    "dropout",
    "scale",
    "skip",
    "n_learned",
    "n_heads",
    "flip",
)  # that weights don't show
LOWPASS = ("lowpass", "lowpass_gt", "lowpass_gt_test")
RAISING = ("dset.min_n_blocks_per_split", "dset.on_bad_recording")
ELSEWHERE = {
    "tensorboard": "test_tracking.py",
    "wandb.use_wandb": "test_tracking.py",
    "wandb.project": "test_tracking.py",
    "wandb.group": "test_tracking.py",
    "device": "test_device_and_workers",
    "num_workers": "test_device_and_workers",
    "cache": "test_cache_is_where_it_is_told_to_be",
    "features_models": "test_model_weights.py",
    "continue_sig": "test_experiment_continues_from_another",
    "continue_best": "test_experiment_continues_from_another",
    "audit": "test_audit.py",
    "plugins": "test_plugins.py",
    "verbose": "test_run_shows_downloads_or_trains",
    "show": "test_run_shows_downloads_or_trains",
    "download_only": "test_run_shows_downloads_or_trains",
    "selections": "dset.selections picks from it",
    "study_paths": "test_study_is_found_by_its_path",
    "slurm": "read by Dora",
    "dummy": "changes the signature, as is its purpose",
    "convrnn.hidden.features": "test_convrnn.py",
    "task.loss": "test_config.py",
}


class SmallStudy(Study):
    """Three people who hear the same story, one of them after a longer silence."""

    name = "small"
    folder: ClassVar[Path]

    def recordings(self) -> Iterator[Recording]:
        for number, lead_in in enumerate((7.0, 1.0, 1.0)):
            events = tell_story(self.folder, lead_in=lead_in, n_sentences=20)
            recording = SmallRecording(self.cache, events, f"r{number}", f"s{number}", number)
            recording.path = self.path
            yield recording


class BrokenStudy(SmallStudy):
    """A sound event that its file doesn't hold."""

    name = "broken"

    def recordings(self) -> Iterator[Recording]:
        events = tell_story(self.folder, lead_in=1.0, n_sentences=20)
        events.loc[0, "offset"] = 3.0
        yield SmallRecording(self.cache, events, "broken")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A small experiment as nested values; its study is known while the tests of this file run."""
    SmallStudy.folder = tmp_path_factory.mktemp("sounds")
    values = to_dict(from_hydra(main.get_xp([]).cfg))
    values["cache"] = str(tmp_path_factory.mktemp("cache"))
    values["selections"]["other"] = values["selections"]["broken"] = {}
    for key, value in BASE.items():
        values = with_value(values, key, value)
    values["selections"].update(other={"study": "small"}, broken={"study": "broken"})
    known: dict[str, Data] = {}

    def build_data_once(config: Config, device: str) -> Data:
        """As `build_data`; hides an effect only of a key that it has no business to read."""
        key = repr([config.dset, config.selections, config.cache, config.seed, device])
        if key not in known:
            known[key] = build_data(config, device)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bm.build, "build_data", build_data_once)
        patch.setitem(registry, "small", SmallStudy)
        patch.setitem(registry, "broken", BrokenStudy)
        yield values


def configure(base: dict[str, Any], changes: dict[str, Any]) -> Config:
    for key, value in changes.items():
        base = with_value(base, key, value)
    return from_dict(base)


def what_is_built(config: Config) -> str:
    """Digest of everything that an experiment would compute with; or the error."""
    try:
        solver = build_solver(config)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    parts: list[Any] = [solver.training, str(solver.models), solver.optimizer.settings]
    parts += [type(solver.loss), losses(solver.loss)]
    hasher = hashlib.sha256()
    parts.append([vars(solver).get(name) for name in ("n_given", *LOWPASS)])
    parts.append([value.tolist() for value in solver.loss.state_dict().values()])
    parts.append(solver.layouts.tolist())
    for name, tensor in solver.models.state_dict().items():
        parts += [name, tuple(tensor.shape)]
        hasher.update(tensor.numpy().tobytes())
    for name, module in solver.models.named_modules():
        parts.append((name, [vars(module).get(key) for key in ATTRIBUTES]))
    for split, dataset in solver.splits.datasets.items():
        parts += [split, dataset.store.residency, dataset.table.to_json()]
        if len(dataset):
            batch = solver.scaler(dataset.gather(torch.arange(min(len(dataset), 100))))
            for tensor in (batch.meg, batch.features, batch.mask, batch.row):
                hasher.update(tensor.contiguous().numpy().tobytes())
    hasher.update(repr(parts).encode())
    return hasher.hexdigest()


def losses(loss: nn.Module) -> list[float]:
    """Loss of two segments that are called alike, while training and afterwards."""
    generator = torch.Generator().manual_seed(0)
    projections = [module for module in loss.modules() if isinstance(module, nn.Conv1d)]
    n_features = projections[0].in_channels if projections else 2
    estimates, candidates = torch.randn(2, 2, n_features, 400, generator=generator)
    alike = {"alike": torch.ones(2, 2, dtype=torch.bool)} if isinstance(loss, ClipLoss) else {}
    with torch.no_grad():
        return [loss.train(mode)(estimates, candidates, **alike).item() for mode in (True, False)]


@pytest.fixture(scope="module")
def built(base: dict[str, Any]) -> dict[str, str]:
    """Digests of what was built, by the values that were set for it."""
    return {}


def test_every_key_has_an_effect_or_raises():
    keys = {
        key.split(".")[0] if key.startswith(("selections", "study_paths", "slurm")) else key
        for key in default_leaves()
    }
    keys -= {key for key in keys if any(f"{key}.".startswith(f"{old}.") for old in UNSUPPORTED)}
    keys -= {key for key in keys if key.startswith("dset.features_params.")}  # test_features.py
    assert keys == set(CHANGES) | set(ELSEWHERE)
    assert not set(CHANGES) & set(ELSEWHERE)


@pytest.mark.parametrize("key", CHANGES)
def test_key_changes_what_is_built(base, built, key):
    value, context = CHANGES[key]
    name = repr(context)
    if name not in built:
        built[name] = what_is_built(configure(base, context))
    changed = what_is_built(configure(base, {**context, key: value}))
    assert changed != built[name]
    assert ("Error" in changed) == (key in RAISING)
    assert ("Error" in built[name]) == (key == "dset.allow_empty_split")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Training)])
def test_setting_of_the_solver_is_read_there(field):
    code = inspect.getsource(bm.solver) + inspect.getsource(bm.objective)
    within = inspect.getsource(Training)  # or by one of its own methods
    assert re.search(rf"training\.{field}\b", code) or re.search(rf"self\.{field}\b", within)


def test_the_same_configuration_builds_the_same(base, built):
    built.setdefault("{}", what_is_built(configure(base, {})))
    assert what_is_built(configure(base, {})) == built["{}"]
    assert "Error" not in built["{}"]


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU")
def test_missing_apple_gpu_is_told_and_the_cpu_used(caplog, monkeypatch):
    assert choose_device("mps") == "cpu"
    assert "device=mps, but there is no Apple GPU" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("cuda") == "cpu"
    assert "This machine has an Apple GPU: device=mps" in caplog.text
    assert choose_device("mps") == "mps"


def test_device_and_workers(base, caplog):
    config = configure(base, {"num_workers": 3})
    assert build_training(config, "cuda").n_workers == 3
    assert build_training(config, "cpu").n_workers == 0  # the CPU has nothing to wait for
    assert choose_device("cpu") == "cpu"
    if not torch.cuda.is_available():
        assert choose_device("cuda") == "cpu"
        assert "device=cuda, but no GPU is available" in caplog.text


@pytest.fixture
def run(base, tmp_path, monkeypatch) -> Iterator[Callable[..., Path]]:
    """Run `dora run` with the given overrides; returns the folder of the experiment."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], logging.getLogger("bm").level
    monkeypatch.setattr(main.dora, "dir", tmp_path / "outputs")
    monkeypatch.setattr(inspect.unwrap(main.main), "__module__", "__main__")  # Dora did, outside

    def run_once(*overrides: str) -> Path:
        argv = [
            "device=cpu", "dset.selections=[small]", "+selections.small={study: small}",
            "dset.features=[MelSpectrum]", "simpleconv.hidden.meg=4", "simpleconv.depth=2",
            "simpleconv.merger_pos_dim=8", "simpleconv.merger_channels=4",
            "simpleconv.initial_linear=4", "optim.epochs=1", "optim.max_batches=1",
            f"cache={base['cache']}", *overrides,
        ]  # fmt: skip
        monkeypatch.setattr("sys.argv", ["dora", *argv])
        main()
        return main.get_xp(argv).folder

    yield run_once
    for handler in set(root.handlers) - set(handlers):  # Hydra has set its own
        handler.close()
    root.handlers[:] = handlers
    logging.getLogger("bm").setLevel(level)


@pytest.mark.filterwarnings("ignore:unclosed file .*argv.json:ResourceWarning")  # Dora's
def test_run_shows_downloads_or_trains(run):
    assert not (run("show=1") / CHECKPOINT).exists()
    assert logging.getLogger("bm").level == logging.INFO
    assert not (run("download_only=true", "verbose=1") / CHECKPOINT).exists()
    assert logging.getLogger("bm").level == logging.DEBUG
    assert (run() / CHECKPOINT).exists()


@pytest.mark.filterwarnings("ignore:unclosed file .*argv.json:ResourceWarning")  # Dora's
def test_what_users_can_mend_is_one_message_and_the_traceback_a_file(run):
    with pytest.raises(SystemExit) as stopped:
        run("dset.tmin=9")
    message = str(stopped.value.code)
    assert message.startswith("dset.tmin=9.0 s must come before dset.tmax=2.5 s.")
    (file,) = re.findall(r"Traceback: (\S+)\. If", message)
    assert "Traceback (most recent call last)" in Path(file).read_text()
    assert "python -m scripts.doctor" in message
    with pytest.raises(SystemExit) as stopped:
        run("optim.lr=fast")  # told before anything is built
    assert str(stopped.value.code).startswith("optim.lr='fast' should be a number.\n(Traceback: ")


def test_end_of_a_run_says_what_to_type_next():
    said = next_steps(Config(), "1a2b", Path("outputs/xps/1a2b"))
    assert "scripts.run_eval_probs 'sigs=[1a2b]'" in said
    assert "checkpoint=outputs/xps/1a2b raw=FILE" in said
    encodes = dataclasses.replace(Config(), task=dataclasses.replace(Config().task, type="encode"))
    assert "Next" not in next_steps(encodes, "1a2b", Path("outputs/xps/1a2b"))


def test_study_is_found_by_its_path(base, tmp_path):
    paths = {"default": {"small": str(tmp_path / "here")}}
    recordings = build_recordings(configure(base, {"study_paths": paths}))
    assert recordings[0].path == tmp_path / "here"
    own = {"small": {"study": "small", "path": str(tmp_path / "there")}}
    recordings = build_recordings(configure(base, {"study_paths": paths, "selections": own}))
    assert recordings[0].path == tmp_path / "there"  # what a selection says counts


def test_cache_is_where_it_is_told_to_be(base, tmp_path):
    what_is_built(configure(base, {"cache": str(tmp_path / "elsewhere")}))
    assert {"events", "features", "signals"} <= {
        path.name for path in (tmp_path / "elsewhere").iterdir()
    }


def test_experiment_continues_from_another(base, tmp_path):
    first = build_solver(configure(base, {}), tmp_path / "first")
    for name, tensor in first.models.state_dict().items():
        if name.endswith("heads"):
            tensor.fill_(3.0)  # the last state; the best one stays as it began
    first.save()
    assert (tmp_path / "first" / CHECKPOINT).exists()

    def continued(best: bool) -> Solver:
        changes = {"continue_sig": "first", "continue_best": best, "seed": 5}
        return build_solver(configure(base, changes), tmp_path / "second")

    assert (continued(best=False).model.merger.heads == 3.0).all()
    torch.testing.assert_close(
        continued(best=True).model.merger.heads.data, first.best_state["meg.merger.heads"]
    )
    with pytest.raises(ValueError, match="nowhere"):
        build_solver(configure(base, {"continue_sig": "nowhere"}), tmp_path / "second")


def test_broken_recording_is_set_aside_or_stops_the_run(base):
    selections = {"dset.selections": ["small", "broken"]}
    solver = build_solver(configure(base, selections))
    assert len(solver.splits.prepared) == 3
    with pytest.raises(DataError, match=r"small/broken: the sound at 1\.000 s needs"):
        build_solver(configure(base, {**selections, "dset.on_bad_recording": "error"}))
