"""Each selection, in miniature: the command lines that train, evaluate, prepare and audit."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pandas as pd
import pytest
from dora.__main__ import main as dora
from fixtures import bids, brennan, broderick, masc, schoffelen
from omegaconf import OmegaConf

from bm.config import CONF
from bm.train import main as experiment
from scripts import audit, run_eval_probs

SMALL = [
    "dset.features_params.MelSpectrum.n_mels=8",
    "simpleconv.hidden.meg=8",
    "simpleconv.depth=2",
    "simpleconv.merger_channels=6",
    "simpleconv.merger_pos_dim=8",
    "simpleconv.initial_linear=6",
    "optim.batch_size=8",
    "optim.epochs=1",
    "optim.max_batches=8",
    "device=cpu",
]
WRITERS: dict[str, Callable[[Path], object]] = {
    "gwilliams2022": masc.write_study,
    "broderick2019": lambda root: broderick.write_study(root, subjects=[1], runs=[1, 2]),
    "brennan2019": brennan.write_study,
    "schoffelen2019": schoffelen.write_study,
    "bids": bids.write_study,
}
SELECTIONS = sorted(OmegaConf.load(CONF / "selections" / "selections_definitions.yaml"))
OPTIONS = {
    "bids": ["selections.bids.root=data/bids"],
    "synthetic": [
        "preset=demo", "+selections.synthetic.n_subjects=2", "+selections.synthetic.n_sessions=1",
        "+selections.synthetic.n_minutes=3", "+selections.synthetic.n_sensors=8",
    ],
}  # fmt: skip
"""What selections need in addition, or need to be small."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands are given: all studies are in ./data, as the configuration has it."""
    folder = tmp_path_factory.mktemp("studies")
    for name, write in WRITERS.items():
        write(folder / "data" / name)
    return folder


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Starts processes that have imported all before (unless another test started one already)."""
    context = multiprocessing.get_context("forkserver")
    # The last is imported by optimizers, in seconds
    context.set_forkserver_preload(["bm.train", "scripts.run_eval_probs", "torch._dynamo"])
    return context


def command(server: ForkServerContext, folder: Path, main: str, *arguments: str) -> str:
    """Give a command in a process of its own; returns what it printed."""
    log = folder / "log.txt"
    process = server.Process(target=_run, args=(folder, log, main, arguments))
    process.start()
    process.join()
    assert process.exitcode == 0, log.read_text()
    return log.read_text()


def _run(folder: Path, log: Path, main: str, arguments: tuple[str, ...]) -> None:
    os.chdir(folder)
    experiment.dora.dir = folder / "outputs"  # was set on import, where the server runs
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if main == "dora":
        sys.argv = ["dora", "-P", "bm", "run", *arguments]
        dora()
    else:
        sys.exit(run_eval_probs.main(arguments))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("selection", "features"),
    [
        ("gwilliams2022", "MelSpectrum"),
        ("broderick2019", "MelSpectrum,WordHash"),
        ("brennan2019", "MelSpectrum"),
        ("audio_mous", "MelSpectrum"),
        ("audio_mous_wl", "MelSpectrum"),
        ("visual_mous", "WordHash"),
    ],
)
def test_selection_trains_and_is_evaluated(
    server: ForkServerContext, folder: Path, selection: str, features: str
) -> None:
    arguments = [f"dset.selections=[{selection}]", f"dset.features=[{features}]", *SMALL]
    printed = command(server, folder, "dora", *arguments)
    signature = printed.rsplit("sigs=[", 1)[1].split("]")[0]
    assert "Epoch 1 train: loss" in printed
    printed = command(server, folder, "run_eval_probs", f"sigs=[{signature}]")
    assert f"{signature}: top-10 segment accuracy" in printed
    evaluation = folder / "outputs" / "xps" / signature / "evaluation"
    table = pd.read_csv(evaluation / "acc.csv")
    assert (table["n_candidates"] > 10).all()
    metadata = pd.read_csv(evaluation / "metadata.csv", keep_default_na=False)
    assert (metadata["word"] != "").all()


def audited(folder: Path, selection: str, *options: str) -> int:
    """Exit code of the leak audit."""
    feature = "WordHash" if selection == "visual_mous" else "MelSpectrum"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return audit.main([f"selections=[{selection}]", f"dset.features=[{feature}]", *options])


@pytest.mark.parametrize("selection", SELECTIONS)
def test_no_selection_leaks(folder, selection, capsys):
    assert audited(folder, selection, *OPTIONS.get(selection, [])) == 0
    assert "No leak." in capsys.readouterr().out


@pytest.mark.parametrize("selection", ["gwilliams2022", "brennan2019", "visual_mous"])
def test_published_options_leak_nothing_where_blocks_are_cut_alike(folder, selection):
    assert audited(folder, selection, f"selections.{selection}.faithful=true") == 0


@pytest.mark.parametrize("selection", ["audio_mous", "audio_mous_wl"])
def test_published_options_of_schoffelen_leak_so_that_they_need_a_warning(
    folder, selection, capsys
):
    """Blocks are merged from the start of the recording, and people had other lead-ins."""
    assert audited(folder, selection, f"selections.{selection}.faithful=true") == 1
    printed = capsys.readouterr().out
    assert "LEAK  stimulus: train and valid share 1 stretch(es)" in printed
    assert "set audit=warn, and say so" in printed


@pytest.mark.slow
def test_preparing_ahead_fills_the_cache_and_names_what_failed(
    server: ForkServerContext, folder: Path
) -> None:
    root = folder / "elsewhere"
    broderick.write_study(root, subjects=[1], runs=[1, 2])
    signal = root / "Natural Speech" / "EEG" / "Subject1" / "Subject1_Run2.mat"
    signal.write_bytes(signal.read_bytes()[:1000])
    arguments = [f"study_paths.default.broderick2019={root}", "cache=prepared", *SMALL]
    choice = ["dset.selections=[broderick2019]", "dset.features=[MelSpectrum]"]
    printed = command(server, folder, "dora", "download_only=true", *choice, *arguments)
    assert "In prepared: 1 recording ok, 1 failed:\n" in printed
    assert f"{signal}" in printed.split("1 failed:\n")[1]
    assert "Experiment" not in printed
    entries = [path.parent.name for path in (folder / "prepared").glob("*/*") if path.is_dir()]
    assert {"events", "signals", "features"} <= set(entries)
