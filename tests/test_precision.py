"""Precision that follows from the hardware: what is chosen, that it is told, and who goes by it."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from ranks import build

from bm import distrib, play, training
from bm.checkpoint import CHECKPOINT, read_checkpoint, write_checkpoint
from bm.config import from_hydra
from bm.core import machine
from bm.solver import Solver
from bm.train import main
from bm.training import Training, choose_precision

SETTINGS = (
    "preset=demo", "dset.selections=[fake]", "dset.features_params.MelSpectrum.n_mels=8",
    "simpleconv.depth=2", "simpleconv.hidden.meg=8", "optim.batch_size=32", "optim.epochs=1",
    "optim.max_batches=2",
)  # fmt: skip
NAMES = {"AMX": "bf16", None: "fp32"}
"""Precision by what multiplies bf16."""


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Go on as on a machine with this unit for bf16."""
    return lambda unit: monkeypatch.setattr(training, "bf16_unit", lambda device: unit)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("found", "unit"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "AMX"),
        ({"amx_bf16": False, "avx512_bf16": True}, "AVX-512"),
        ({"avx512_f": True, "avx512_bf16": False}, None),  # it would be emulated
        ({"architecture": "arm64", "bf16": True}, None),
    ],
)
def test_a_cpu_multiplies_bf16_if_it_has_an_instruction_for_it(monkeypatch, found, unit):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(found))
    assert machine.bf16_unit("cpu") == unit
    assert machine.bf16_unit("mps") is None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert machine.bf16_unit("cpu") is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_multiplies_bf16_from_ampere_on():
    has_unit = torch.version.hip or torch.cuda.get_device_capability("cuda:0")[0] >= 8
    assert machine.bf16_unit("cuda:0") == (torch.cuda.get_device_name(0) if has_unit else None)


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("AMX", "optim.precision=auto: bf16, as AMX multiplies bf16."),
        (None, "optim.precision=auto: fp32, as cpu has nothing that multiplies bf16."),
    ],
)
def test_auto_follows_the_hardware_and_says_so(hardware, caplog, unit, message):
    hardware(unit)
    caplog.set_level("INFO", "bm")
    for wanted in ("fp32", "tf32", "bf16"):
        assert choose_precision(wanted, "cpu") == wanted
    assert not caplog.messages
    assert choose_precision("auto", "cpu") == NAMES[unit]
    assert caplog.messages == [message]


def test_processes_of_unlike_machines_all_work_in_fp32(hardware, caplog, monkeypatch):
    hardware("AMX")
    caplog.set_level("INFO", "bm")
    asked = []
    monkeypatch.setattr(distrib, "counts", lambda n: asked.append(n) or [n, 0])
    assert choose_precision("auto", "cpu") == "fp32"
    assert asked == [1]
    assert "the device of another process has nothing that multiplies bf16" in caplog.text


def test_auto_must_be_chosen_before_there_is_training():
    with pytest.raises(ValueError, match=r"Training.precision='auto' does not exist"):
        Training(1, 8, 120.0, precision="auto")


@pytest.mark.parametrize("preset", ["demo", "compact"])
def test_presets_choose_and_the_default_is_exact(preset):
    assert precision_of(f"preset={preset}") == "auto"
    assert precision_of() == "fp32"
    assert precision_of(f"preset={preset}", "optim.precision=fp32") == "fp32"


@pytest.mark.parametrize("unit", NAMES)
def test_training_retrieval_and_decoder_work_in_what_was_chosen(cache, hardware, tmp_path, unit):
    solver = built(cache, hardware, unit)
    solver.folder = tmp_path
    dtypes = set()
    for module in solver.model.modules():
        if isinstance(module, torch.nn.Conv1d):
            module.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    solver.run()
    expected = torch.bfloat16 if unit else torch.float32
    assert dtypes == {expected}
    assert solver.training.dtype == expected  # of retrieval's scores
    assert read_checkpoint(tmp_path / CHECKPOINT)["precision"] == NAMES[unit]
    assert play.load(tmp_path).precision == NAMES[unit]


def test_going_on_in_another_precision_is_told(cache, hardware, tmp_path, caplog):
    path = tmp_path / CHECKPOINT
    built(cache, hardware, "AMX", tmp_path).save()
    assert built(cache, hardware, "AMX").restore(path)
    assert "trained in" not in caplog.text
    assert built(cache, hardware, None).restore(path)
    assert "was trained in bf16; from here on it is fp32." in caplog.text
    state = read_checkpoint(path)
    del state["precision"]
    state["config"]["optim"]["precision"] = "fp32"  # as checkpoints of earlier versions have it
    write_checkpoint(path, state)
    assert built(cache, hardware, "AMX").restore(path)
    assert "was trained in fp32; from here on it is bf16." in caplog.text


def precision_of(*overrides: str) -> str:
    """As configured."""
    return str(from_hydra(main.get_xp(list(overrides)).cfg).optim.precision)


def built(
    cache: Path,
    hardware: Callable[[str | None], None],
    unit: str | None,
    folder: Path | None = None,
) -> Solver:
    """Of the preset, on a machine with this unit for bf16."""
    hardware(unit)
    solver = build([*SETTINGS, f"cache={cache}"])
    solver.folder = folder
    assert solver.training.precision == NAMES[unit]
    return solver
