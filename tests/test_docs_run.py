"""Code of the pages is run as it stands there, in order, on the smallest experiments there are.

What differs: a name that readers fill in is filled in (`Reader.fill`), and studies and models are
small (`SMALL`). Pages with a test of their own run there (`RUN_BY`). What can't be run here is said
in `NOT_HERE`.
"""

import importlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
from doc_blocks import PAGES, ROOT, RUN_BY, Block, blocks_of, commands_of, is_shell
from fixtures.bids import write_study

from bm.build import build_solver
from bm.config import from_hydra
from bm.studies import from_selection
from bm.train import main as experiment

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file .*argv.json:ResourceWarning")  # Dora

NOT_HERE = {
    r"python make_\w+\.py": "a block of the page, run before as a block",
    r"make |source |export |pip |jupyter |sudo ": "the shell, this suite itself, other programs",
    r"dora grid|dora run -d|.*distributed=true": "SLURM, many processes: test_slurm, test_distrib",
    r".*scripts\.(download|reproduce) |globus |dora run -f|.*gwilliams2022": "real data",
    r".*scripts\.(run_grid|benchmark) |.*imported\.pt": "test_grids, _benchmark, _published",
}
"""Beginnings of commands that aren't run here, and why, or what runs them."""
SMALL = {
    "dset.features": "[MelSpectrum]", "dset.features_params.MelSpectrum.n_mels": "4",
    "simpleconv.hidden.meg": "8", "simpleconv.depth": "2", "simpleconv.merger_channels": "6",
    "simpleconv.merger_pos_dim": "8", "simpleconv.initial_linear": "6", "optim.batch_size": "8",
    "optim.epochs": "1", "optim.max_batches": "4", "device": "cpu", "num_workers": "0",
}  # fmt: skip
HERE = [page for page in PAGES if page.name not in RUN_BY]


@dataclass(frozen=True)
class Reader:
    """Somebody who reads the pages, and has a folder, an experiment, a dataset and a recording."""

    folder: Path
    sig: str
    done: list[list[str]] = field(default_factory=list)

    def fill(self, text: str) -> str:
        """Fill in what readers have, and smaller things in place of big ones of the same kind."""
        text = text.replace("SIG", self.sig).replace(
            "/data/my_study", str(self.folder / "my_study")
        )
        return text.replace("[synthetic]", "[fake]").replace("nmi.main_table", "demo")

    def run(self, block: Block, names: dict[str, Any]) -> None:
        """Run the code of a block, or those of its commands that can be run here.

        `names` are those that earlier blocks of the page have defined.
        """
        if block.language == "python":
            exec(compile(self.fill(block.text), block.page, "exec"), names)
        elif is_shell(block):
            for words in commands_of(block):
                filled = [self.fill(word) for word in words]
                if is_run(words) and filled not in self.done:  # once is enough for several pages
                    execute(filled)
                    self.done.append(filled)


def is_run(words: Sequence[str]) -> bool:
    return not any(re.match(beginning, " ".join(words)) for beginning in NOT_HERE)


def execute(words: Sequence[str]) -> None:
    """Run a command in this process, which is faster."""
    if words[:2] == ["dora", "run"]:
        train(words[2:])
    else:
        assert words[:2] == ["python", "-m"]
        assert importlib.import_module(words[2]).main(words[3:]) == 0, words


def train(overrides: Sequence[str]) -> str:
    """Do what ``dora run`` does, with a small model; returns the signature."""
    told = {override.lstrip("+").partition("=")[0] for override in overrides}
    study = {"dset.selections": "[fake]"} if "preset=demo" in overrides else {}
    small = [f"{key}={value}" for key, value in (SMALL | study).items() if key not in told]
    xp = experiment.get_xp([*overrides, *small])
    experiment.init_xp(xp)
    build_solver(from_hydra(xp.cfg), Path(xp.folder).absolute()).run()
    return str(xp.sig)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    conf = Path(shutil.copytree(ROOT / "conf", folder / "conf"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(experiment.dora, "dir", folder / "outputs")
        patch.setattr(experiment, "full_config_path", conf)
        write_study(folder / "my_study")
        recording = next(iter(from_selection({"study": "fake"})))
        recording.raw().save(folder / "new_raw.fif", verbose="error")
        events = recording.events()
        shutil.copy(events[events["kind"] == "sound"]["filepath"].iloc[0], folder / "story.wav")
        one = Reader(folder, train(["preset=demo"]))
        (selection,) = (
            block.text
            for block in blocks_of(ROOT / "docs" / "your-own-data.md")
            if "selections_definitions" in block.text
        )
        (conf / "selections" / "my_study.yaml").write_text(one.fill(selection))
        yield one


@pytest.mark.parametrize("page", HERE, ids=lambda page: page.name)
def test_page_runs_as_it_is_written(reader, page):
    names: dict[str, Any] = {}
    for block in blocks_of(page):
        reader.run(block, names)
    plt.close("all")


def test_few_commands_are_not_run_and_each_exception_is_needed():
    commands = [
        words
        for page in HERE
        for block in blocks_of(page)
        if is_shell(block)
        for words in commands_of(block)
    ]
    for beginning in NOT_HERE:
        assert any(re.match(beginning, " ".join(words)) for words in commands), beginning
    assert sum(map(is_run, commands)) >= 10
