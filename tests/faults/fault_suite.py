"""Processes of the fault suite, its results without any fault, and the tally."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import stages
from stages import Pieces

from bm.config import Config

HERE = Path(__file__).parent
BEGIN, END = "<!-- made by make faults -->", "<!-- end -->"
NEEDS = {
    "preprocessing": (),
    "feature extraction": ("preprocessing",),
    "checkpointing": ("preprocessing", "feature extraction"),
    "evaluation": ("preprocessing", "feature extraction", "checkpointing"),
    "download": (),
}
"""What must have been done before a stage."""


class Processes:
    """Starts stages as processes of their own, quickly: they are forked from one that waits."""

    def __init__(self, base: Path, env: dict[str, str]):
        tests = HERE.parent
        path = f"{env['PYTHONPATH']}:{tests}:{HERE}"
        self.waiting = subprocess.Popen(
            [sys.executable, str(HERE / "stages.py"), str(base)],
            env={**env, "PYTHONPATH": path}, text=True, cwd=base,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def start(self, stage: str, folder: Path, **env: str) -> int:
        """Start a stage, with further environment variables; returns the process id."""
        return self._ask("start", stage, str(folder), env)

    def wait(self, pid: int) -> int:
        """Wait for a process; returns its exit code, negative for a signal."""
        return self._ask("wait", pid)

    def finish(self, stage: str, folder: Path) -> None:
        """Run a stage to its end."""
        code = self.wait(self.start(stage, folder))
        assert code == 0, (folder / "log.txt").read_text()[-2000:]

    def close(self) -> None:
        assert self.waiting.stdin is not None
        self.waiting.stdin.close()
        self.waiting.wait(30)
        self.waiting.stdout.close()  # type: ignore[union-attr]

    def _ask(self, *command: object) -> int:
        assert self.waiting.stdin is not None
        assert self.waiting.stdout is not None
        print(json.dumps(command), file=self.waiting.stdin, flush=True)
        return int(self.waiting.stdout.readline())


@dataclass
class Tally:
    """How often each fault was tried, and what it cost.

    Attributes
    ----------
    path : file whose table is replaced; None: there is none.
    """

    path: Path | None = None
    rows: dict[str, list[int]] = field(default_factory=dict)

    def add(self, fault: str, lost: int = 0, wrong: int = 0, tried: int = 1) -> None:
        """Count tries; `lost` finished pieces were made again, `wrong` ones differ."""
        row = self.rows.setdefault(fault, [0, 0, 0])
        for column, n in enumerate((tried, lost, wrong)):
            row[column] += n
        if self.path is not None:
            self.write(self.path)
        assert not lost, f"{fault}: {lost} lost"
        assert not wrong, f"{fault}: {wrong} wrong"

    def write(self, path: Path) -> None:
        """Put the table into a file, in its place."""
        text, place = path.read_text(), re.compile(f"{BEGIN}.*?{END}", re.DOTALL)
        assert place.search(text), f"{path} has no place for the table"
        path.write_text(place.sub(f"{BEGIN}\n\n{self.table()}\n\n{END}", text))

    def table(self) -> str:
        """The rows and their sum, as Markdown."""
        total = [sum(column) for column in zip(*self.rows.values(), strict=True)]
        rows = {**self.rows, "**all**": total}
        lines = [
            f"| {name} | {n:,} | {lost} | {wrong} |" for name, (n, lost, wrong) in rows.items()
        ]
        return "\n".join(["| fault | times tried | lost | wrong |", "|---|---|---|---|", *lines])


@dataclass
class Reference:
    """The study, and what each stage gives where nothing goes wrong.

    Attributes
    ----------
    base : folder of the study and of the model.
    folder : in which all stages but the download are done.
    results : pieces of each.
    """

    base: Path
    folder: Path
    results: dict[str, Pieces]

    @property
    def config(self) -> Config:
        return stages.configured(self.folder, stages.compose(self.base))

    def begin(self, stage: str, folder: Path) -> Path:
        """A folder with all that a stage needs, and nothing of its own."""
        folder.mkdir()
        for needed in NEEDS[stage]:
            for part in {
                "preprocessing": ("cache/signals", "cache/events", "cache/blocks"),
                "feature extraction": ("cache/features",),
                "checkpointing": (stages.EXPERIMENT,),
            }[needed]:
                shutil.copytree(self.folder / part, folder / part)
        if stage == "evaluation":  # whose checkpoint names its cache
            shutil.rmtree(folder / "cache")
        return folder
