"""Checkpoints of the published code: numbers, everything carried over, nothing in them run."""

import io
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures.published import write_published
from small_models import CLIP_CONV
from torch import Tensor

from bm import play
from bm.build import build_solver
from bm.checkpoint import read_checkpoint, write_checkpoint
from bm.config import from_dict, from_hydra, to_dict
from bm.models import SimpleConv
from bm.published import import_published, read_published, reader
from bm.scaling import robust_scale
from bm.solver import Solver
from bm.train import main as experiment
from scripts import import_published as script

SMALL = {
    "simpleconv.hidden.meg": 16,
    "simpleconv.merger_channels": 12,
    "simpleconv.merger_pos_dim": 32,
    "simpleconv.initial_linear": 12,
}
FAKE = [
    "preset=demo", "dset.selections=[fake]", "optim.epochs=1", "optim.batch_size=32",
    "simpleconv.hidden.meg=16", "feature_model=deep_mel",
    "feature_model_params.n_hidden_channels=8", "feature_model_params.n_hidden_layers=2",
    "feature_model_params.n_out_channels=12",
]  # fmt: skip
HISTORY = [
    {"train": {"loss": 4.0}, "valid": {"loss": 3.5, "wer": 0.1}},
    {"train": {"loss": 3.0}, "valid": {"loss": 2.5, "wer": 0.2}, "test": {"wer": 0.25}},
    {"train": {"loss": 2.0}, "valid": {"loss": 2.75, "wer": 0.2}},
]

Scales = dict[Any, tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def golden(root: Path) -> dict[str, Tensor]:
    with np.load(root / "tests" / "golden" / "published_numbers.npz") as numbers:
        return {name: torch.from_numpy(numbers[name]) for name in numbers}


def published_config(*arguments: str) -> dict[str, Any]:
    """A configuration such as the published code kept: also what isn't the experiment's."""
    config = to_dict(from_hydra(experiment.get_xp(list(arguments)).cfg))
    config["optim"]["lr"] = "3e-4"  # a text for some readers of YAML
    return {**config, "dora": {"dir": "/checkpoint/someone"}, "cache": "/checkpoint/someone/cache"}


def content_of(
    config: dict[str, Any], models: dict[str, Tensor], recordings: Scales, features: Scales
) -> dict[str, Any]:
    names = {"meg": "0", "features": "1"}
    weights = {}
    for key, tensor in models.items():
        model, _, name = key.partition(".")
        weights[f"{names[model]}.{name}"] = tensor
    last = {
        key: value + 1 if value.is_floating_point() else value for key, value in weights.items()
    }
    return {
        "config": config,
        "models": last,
        "best_state": weights,
        "meg_scalers": recordings,
        "feature_scalers": features,
        "history": HISTORY,
        "best_epoch": 1,
        "best_loss": 2.5,
    }


@pytest.fixture(scope="module")
def golden_file(
    golden: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory, python_env: dict[str, str]
) -> Path:
    """The golden model of published_numbers.npz as the published code would have kept it."""
    config = published_config(*(f"{key}={value}" for key, value in SMALL.items()))
    models = {
        name.replace("param/", "meg."): value
        for name, value in golden.items()
        if name.startswith("param/")
    }
    recordings = {
        0: (golden["scaler/center"], golden["scaler/scale"]),
        2: (torch.arange(20.0), torch.full((20,), 3.0)),
    }
    features = {"Wav2VecTransformer": (torch.tensor([0.5]), torch.tensor([2.0]))}
    path = tmp_path_factory.mktemp("golden") / "checkpoint.th"
    return write_published(path, content_of(config, models, recordings, features), python_env)


def test_imported_model_gives_the_published_output(golden, golden_file):
    state = import_published(golden_file)
    options = from_dict(state["config"]).simpleconv
    assert (options.depth, options.merger_channels, options.hidden.meg) == (10, 12, 16)
    model = SimpleConv(20, 8, 3, **CLIP_CONV).eval()
    best = {name.removeprefix("meg."): value for name, value in state["best_state"].items()}
    model.load_state_dict(best, strict=True)
    with torch.no_grad():
        output = model(golden["meg"], golden["subject_index"], golden["positions"], torch.arange(2))
    difference = (output - golden["output"]).abs().max() / golden["output"].abs().max()
    assert difference <= 1e-5
    assert torch.equal(state["models"]["meg.merger.heads"], golden["param/merger.heads"] + 1)


def test_imported_scale_is_the_published_one(golden, golden_file):
    scaler = import_published(golden_file)["scaler"]
    centre, scale = robust_scale(golden["scaler/x"].numpy())
    np.testing.assert_allclose(scaler["centre"][0, :4], centre, rtol=1e-5)
    np.testing.assert_allclose(scaler["scale"][0, :4], scale, rtol=1e-5)
    assert torch.equal(scaler["centre"][2], torch.arange(20.0))
    assert torch.equal(scaler["scale"][0, 4:], torch.ones(16))  # as many as the largest has
    assert (scaler["centre"][1] == 0).all()  # has no segments to train on
    assert (scaler["scale"][1] == 1).all()
    assert scaler["feature_centre"].tolist() == [0.5] * 8
    assert scaler["feature_scale"].tolist() == [2.0] * 8
    assert (scaler["max_scale"], scaler["clip"]) == (20.0, True)


def test_history_and_configuration_are_carried_over(golden_file, tmp_path):
    state = import_published(golden_file)
    assert state["history"] == HISTORY
    assert (state["best_epoch"], state["best_loss"], state["tested_epoch"]) == (1, 2.5, 1)
    config = from_dict(state["config"])
    assert config.optim.lr == 3e-4
    assert config.cache == "./cache"  # that of the machine, not of the file
    assert config.dset.features == ["Wav2VecTransformer"]
    assert config.selections["gwilliams2022"]["faithful"] is True
    assert state["features"] == [{"name": "Wav2VecTransformer", "dimension": 8}]
    assert ["simpleconv.hidden.meg", 16, "published checkpoint 0123abcd"] in state["provenance"]
    write_checkpoint(tmp_path / "ours.pt", state)
    assert read_checkpoint(tmp_path / "ours.pt")["history"] == HISTORY  # plain: weights_only


def test_values_of_the_configuration_can_be_replaced(golden_file):
    overrides = {"study_paths": {"default": {"gwilliams2022": "/data/here"}}, "seed": 3}
    config = import_published(golden_file, overrides)["config"]
    assert config["study_paths"]["default"]["gwilliams2022"] == "/data/here"
    assert config["study_paths"]["default"]["brennan2019"] == "./data/brennan2019/"
    assert config["seed"] == 3
    with pytest.raises(ValueError, match="Unknown key sead"):
        import_published(golden_file, {"sead": 3})


def test_weights_that_do_not_fit_the_configuration_are_refused(golden_file):
    with pytest.raises(ValueError, match=r"don't fit the configuration.*(?s:.)*merger\.heads"):
        import_published(golden_file, {"simpleconv": {"merger_pos_dim": 72}})
    with pytest.raises(ValueError, match=r"simpleconv\.rewrite=True has no effect"):
        import_published(golden_file, {"simpleconv": {"rewrite": True}})


# All the way


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Solver:
    """A model of two simulated listeners, trained by us."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = [*FAKE, f"cache={folder / 'cache'}"]
    solver = build_solver(from_hydra(experiment.get_xp(arguments).cfg), folder / "xp")
    solver.run()
    return solver


@pytest.fixture(scope="module")
def imported(trained: Solver, python_env: dict[str, str]) -> Path:
    """The same model, written as the published code does, then imported from the command line."""
    assert trained.folder is not None
    folder, scaler = trained.folder.parent, trained.scaler
    scales = {
        index: (scaler.centre[index], scaler.scale[index]) for index in range(len(scaler.centre))
    }
    mel = {"MelSpectrum": (scaler.feature_centre[:1], scaler.feature_scale[:1])}
    content = content_of(published_config(*FAKE), trained.best_state, scales, mel)
    path = write_published(folder / "checkpoint.th", content, python_env)
    out = folder / "imported.pt"
    assert script.main([str(path), str(out), f"cache={folder / 'cache'}"]) == 0
    return out


def test_imported_checkpoint_retrieves_the_same_segments(trained, imported):
    solver = play.get_solver_from_checkpoint(imported)
    for name, tensor in trained.best_state.items():
        assert torch.equal(solver.best_state[name], tensor)
    ours, theirs = trained.retrieve(), solver.retrieve()
    assert theirs.table["rank"].tolist() == ours.table["rank"].tolist()
    np.testing.assert_allclose(
        theirs.table["probability"], ours.table["probability"], rtol=1e-5, atol=1e-7
    )
    assert solver.history == HISTORY
    assert solver.about["sensors"] == trained.about["sensors"]  # the file doesn't have them
    assert solver.state_dict()["subjects"] == trained.splits.subjects


def test_imported_checkpoint_on_other_data_is_refused(imported, tmp_path):
    state = read_checkpoint(imported)
    state["config"]["dset"]["n_recordings"] = 1
    write_checkpoint(tmp_path / "less.pt", {k: v for k, v in state.items() if k != "format"})
    with pytest.raises(ValueError, match="2 recordings of up to 16 sensors, but 1 of"):
        play.get_solver_from_checkpoint(tmp_path / "less.pt")


def test_script_explains_itself_and_its_errors(imported, golden_file, tmp_path, capsys):
    assert script.main(["--help"]) == 0
    assert "scripts.run_eval_probs checkpoint=" in capsys.readouterr().out
    assert script.main([]) == 2
    assert script.main([str(golden_file)]) == 2
    assert script.main([str(golden_file), str(imported)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert script.main([str(tmp_path / "nowhere.th"), str(tmp_path / "out.pt")]) == 1
    assert "nowhere.th can't be read" in capsys.readouterr().err
    assert script.main([str(imported), str(tmp_path / "out.pt")]) == 1
    assert "has no xp.cfg, xp.sig, all_models" in capsys.readouterr().err
    assert not (tmp_path / "out.pt").exists()


# Nothing is run


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def write_zip(path: Path, data: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"(posix|nt)\.system"),
        (eval, r"(builtins|__builtin__)\.eval"),
        (getattr, r"(builtins|__builtin__)\.getattr"),
        (subprocess.Popen, r"(subprocess|commands)\.Popen"),
        (torch.load, r"torch\.serialization\.load"),
    ],
)
def test_malicious_file_is_refused_and_not_run(tmp_path, function, name, protocol):
    touched = tmp_path / "touched"
    arguments = {
        os.system: (f"touch {touched}",),
        eval: (f"open({str(touched)!r}, 'w')",),
        getattr: (touched, "touch"),
        subprocess.Popen: (["touch", str(touched)],),
        torch.load: (touched,),
    }[function]
    path = tmp_path / "checkpoint.th"
    write_zip(path, pickle.dumps({"history": Calls(function, *arguments)}, protocol))
    with pytest.raises(ValueError, match=f"names {name}, which"):
        read_published(path)
    assert not touched.exists()


def test_malicious_torch_file_is_refused(tmp_path):
    path = tmp_path / "checkpoint.th"
    touched = tmp_path / "touched"
    torch.save({"weights": torch.ones(3), "x": Calls(os.system, f"touch {touched}")}, path)
    with pytest.raises(ValueError, match="could run code"):
        read_published(path)
    assert not touched.exists()


def test_file_can_not_change_what_is_outside_of_it(tmp_path):
    """BUILD with a pair sets attributes: of a throw-away function, and of no class."""
    change = b"\x80\x02c%b\n}(X\x06\x00\x00\x00hackedX\x03\x00\x00\x00yesu\x86b."
    state = b"\x80\x02c%b\nN}(X\x06\x00\x00\x00hackedX\x03\x00\x00\x00yesu\x86b."
    for target in (b"collections\nOrderedDict", b"bm.norm\nBatchScaler", b"numpy\ndtype"):
        for code in (change, state):
            with pytest.raises(ValueError, match="can't be read"):
                read_published(write_zip(tmp_path / "c.th", code % target))
    with pytest.raises(ValueError, match="function, not the parts"):
        read_published(write_zip(tmp_path / "c.th", state % b"torch._utils\n_rebuild_tensor_v2"))
    assert not any(
        hasattr(thing, "hacked")
        for thing in (*vars(reader).values(), *reader.FUNCTIONS.values(), *reader.CLASSES.values())
    )


def test_tensor_outside_of_its_storage_is_refused(tmp_path):
    saved = io.BytesIO()
    torch.save({"history": torch.arange(8.0)}, saved)
    with zipfile.ZipFile(saved) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in content if name.endswith("data.pkl"))
    before = b"K\x00K\x08\x85"  # offset 0, shape (8,)
    assert content[name].count(before) == 1
    content[name] = content[name].replace(before, b"K\x00K\x7f\x85")
    with zipfile.ZipFile(tmp_path / "c.th", "w") as archive:
        for entry, data in content.items():
            archive.writestr(entry, data)
    with pytest.raises(ValueError, match="out of bounds"):
        read_published(tmp_path / "c.th")


def test_compressed_truncated_and_foreign_files_are_refused(golden_file, tmp_path):
    bomb = write_zip(tmp_path / "c.th", pickle.dumps(bytes(10**6)), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed, which torch never does"):
        read_published(bomb)
    cut = tmp_path / "cut.th"
    cut.write_bytes(golden_file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"cut\.th can't be read as a published checkpoint"):
        read_published(cut)
    cut.write_bytes(pickle.dumps({"history": []}))
    with pytest.raises(ValueError, match="not a zip file"):
        read_published(cut)


def test_types_of_the_pickle_become_plain(golden_file):
    content = read_published(golden_file)
    scaler = content["scaler"]
    assert type(scaler).__name__ == "BatchScaler"
    assert type(scaler).__module__ == "bm.norm"
    mel = scaler.state["feature_scalers"]["Wav2VecTransformer"].state
    assert isinstance(mel["center_"], np.ndarray)
    assert mel["center_"].dtype == np.float32
    assert scaler.state["meg_scalers"][0].state["lowq"] == 0.25
    assert content["best_loss"] == 2.5
    assert content["optimizer"]["param_groups"][0]["lr"] == 1e-3
