"""The doctor finds what is wrong with a machine, and says what to do."""

import re
from pathlib import Path

import pytest
import torch

from bm.core import cache as cache_module
from bm.core.cache import Cache
from scripts import doctor, terminal


def examine(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and output."""
    code = doctor.main(arguments)
    return code, capsys.readouterr().out


def failures(printed: str) -> list[str]:
    """Lines of what is wrong, each with its remedy."""
    return re.findall(r"^fail .*\n +-> .*$", printed, re.MULTILINE)


@pytest.fixture
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a set-up that works, on a machine that may ask the hub."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return ["preset=demo", f"cache={tmp_path / 'cache'}"]


def test_healthy_machine_has_nothing_to_mend(capsys, healthy):
    code, printed = examine(capsys, *healthy)
    assert code == 0
    assert not failures(printed)
    assert printed.endswith("Nothing to mend.\n")
    looked_at = re.findall(r"^(?:ok|warn) +(\w+)", printed, re.MULTILINE)
    assert {
        "python",
        "packages",
        "device",
        "memory",
        "disk",
        "study",
        "cache",
        "features",
        "slurm",
    } == (set(looked_at))


@pytest.mark.parametrize("unit", ["AMX", None])
def test_what_multiplies_bf16_is_told(monkeypatch, unit):
    monkeypatch.setattr(doctor, "bf16_unit", lambda device: unit)
    (finding,) = doctor.find_device("cpu", is_told=True)
    expected = "bf16 by AMX" if unit else "nothing that multiplies bf16"
    assert re.search(rf"ok +device +cpu, \d+ core\(s\), {expected}", str(finding))


def test_missing_weights_are_found(capsys, healthy, tmp_path, monkeypatch):
    arguments = [*healthy, "dset.features=[SpeechEncoder]", f"features_models={tmp_path}"]
    arguments += ["+dset.features_params.SpeechEncoder.model=nobody/nothing"]
    code, printed = examine(capsys, *arguments)
    assert code == 0
    assert "warn  features     SpeechEncoder: nobody/nothing isn't here: it would be" in printed
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, printed = examine(capsys, *arguments)
    (found,) = failures(printed)
    assert code == 1
    assert "nobody/nothing isn't here" in found
    assert "-> hf download nobody/nothing, or copy it to" in found
    (tmp_path / "nobody--nothing").mkdir()
    assert "lacks config.json" in failures(examine(capsys, *arguments)[1])[0]


def test_wrong_path_is_found(capsys, healthy, tmp_path):
    arguments = [*healthy, "dset.selections=[bids]", f"selections.bids.root={tmp_path / 'absent'}"]
    code, printed = examine(capsys, *arguments)
    (found,) = failures(printed)
    assert code == 1
    assert f"{tmp_path / 'absent'} does not exist" in found
    assert "-> correct the path" in found
    code, printed = examine(capsys, *healthy, "dset.selections=[bids]")
    assert "-> selections.NAME.root=FOLDER" in failures(printed)[0]
    code, printed = examine(capsys, *healthy, "dset.selections=[gwilliams2022]")
    assert (code, failures(printed)) == (0, [])
    assert "-> python -m scripts.download gwilliams2022" in printed


def test_missing_login_is_found_without_showing_what_is_there(capsys, healthy, monkeypatch):
    monkeypatch.delenv("DRYAD_TOKEN", raising=False)
    _, printed = examine(capsys, *healthy, "dset.selections=[broderick2019]")
    assert "warn  login        DRYAD_TOKEN isn't set" in printed
    monkeypatch.setenv("DRYAD_TOKEN", "secret with blanks")
    code, printed = examine(capsys, *healthy, "dset.selections=[broderick2019]")
    assert code == 1
    assert "secret" not in printed


def test_full_disk_is_found(capsys, small_disk):
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filling").write_bytes(b"x" * 3_000_000)
    code, printed = examine(capsys, "preset=demo", f"cache={small_disk / 'cache'}")
    (found,) = failures(printed)
    assert code == 1
    assert "can't be written to: No space left" in found
    assert "-> free some space, or choose cache=FOLDER" in found


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_found(capsys, healthy):
    code, printed = examine(capsys, *healthy, "device=cuda")
    (found,) = failures(printed)
    assert code == 1
    assert "finds no GPU" in found
    assert "-> device=cpu, or a driver" in found
    code, printed = examine(capsys, f"{healthy[1]}", "dset.selections=[fake]")
    assert code == 0  # a default, that falls back on the CPU
    assert "warn  device" in printed


def test_corrupt_cache_is_found(capsys, healthy, tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache")

    def build(folder: Path) -> None:
        (folder / "values").write_bytes(b"\0" * 100)

    entry = cache.entry("signals", {"a": 1}, build)
    assert "1 entries, 0.00 GB, checksums of 1 compared" in examine(capsys, *healthy)[1]
    (entry / "values").write_bytes(b"\0" * 99 + b"\1")
    code, printed = examine(capsys, *healthy)
    (found,) = failures(printed)
    assert code == 1
    assert f"{entry}: values has another checksum" in found
    assert "-> delete that folder" in found
    monkeypatch.setattr(doctor, "VERIFIED", 0)
    assert examine(capsys, *healthy)[0] == 0  # too large to compare it all ...
    assert examine(capsys, *healthy, "verify=true")[0] == 1  # ... unless that is asked for
    (entry / "values").write_bytes(b"\0" * 99)
    assert examine(capsys, *healthy)[0] == 1  # sizes always
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_module.logger, "disabled", True)
        Cache(tmp_path / "cache").entry("signals", {"a": 1}, build)
    code, printed = examine(capsys, *healthy)
    assert code == 0
    assert "1 corrupt entries were set aside" in printed


def test_wrong_argument_is_told(capsys):
    assert doctor.main(["devise=cpu"]) == 2
    assert "Unknown option 'devise'" in capsys.readouterr().err
    assert doctor.main(["device=3"]) == 2


def test_no_colours_in_a_pipe_or_against_the_wish(monkeypatch):
    finding = terminal.Finding("disk", "fail", "full", "free some space")
    assert "\033" not in str(finding)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert "\033[31mfail" in str(finding)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033" not in str(finding)
