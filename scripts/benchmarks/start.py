"""From nothing to the first batch, once all is prepared: a warm start.

Options:
  n_recordings=4    of the simulated study, of one listener each
  minutes=10.0      of each
  n_sensors=102     at most 102
  batch_size=64
  n_threads=1       of torch
  repeats=5

Unit: s, of a fresh process, imports included. The reference opens files at the rate of training,
reads 200 segments of each recording to fit its scaler, and assembles a batch; see
`scripts.benchmarks.parts.plain_start`. bm's first start, which simulates and prepares all, is
shown as "bm, cold"; "import bm" is what the package itself takes.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts.benchmarks.parts import memory
from scripts.benchmarks.parts.measure import Row, in_turn, rows_of, seconds
from scripts.benchmarks.parts.plain_start import prepare

PLAIN = "plain, warm"
OURS = """
import sys
import torch
from bm.build import build_data, build_scaler
from bm.config import from_hydra
from bm.segments import SegmentLoader
from bm.train import main
n_threads, batch_size, *arguments = sys.argv[1:]
torch.set_num_threads(int(n_threads))
config = from_hydra(main.get_xp(arguments).cfg)
splits = build_data(config, "cpu").splits
scaler = build_scaler(config, splits)
print(len(scaler(next(SegmentLoader(splits.datasets["train"], int(batch_size)).epoch(0)))))
"""
THEIRS = """
import sys
from scripts.benchmarks.parts.plain_start import first_batch
n_threads, batch_size, folder = sys.argv[1:]
print(len(first_batch(folder, int(batch_size), int(n_threads))))
"""


@dataclass(frozen=True)
class Settings:
    """See above."""

    n_recordings: int = 4
    minutes: float = 10.0
    n_sensors: int = 102
    batch_size: int = 64
    n_threads: int = 1
    repeats: int = 5


def run(settings: Settings) -> list[Row]:
    """Prepare all, then start again and again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hours = settings.n_recordings * settings.minutes / 60
        memory.in_fresh_process(prepare, folder, hours, settings.n_recordings, settings.n_sensors)
        ours = partial(start, OURS, settings, *arguments(folder, settings))
        theirs = partial(start, THEIRS, settings, str(folder))
        cold = seconds(ours)
        works: dict[str, Callable[[], object]] = {
            PLAIN: theirs,
            "bm, warm": ours,
            "import bm": partial(execute, "import bm"),
        }
        cases = {case: partial(seconds, work) for case, work in works.items()}
        figures = in_turn(cases, settings.repeats)
        imports = {"import bm": figures.pop("import bm")}
    rows = rows_of("start", "s", figures, PLAIN, less_is_better=True)
    return [*rows, *rows_of("start", "s", {"bm, cold": [cold], **imports})]


def arguments(folder: Path, settings: Settings) -> list[str]:
    """What to ask of ``dora run``."""
    study = {
        "n_subjects": settings.n_recordings,
        "n_sessions": 1,
        "n_sensors": settings.n_sensors,
        "n_minutes": settings.minutes,
    }
    return [
        "dset.selections=[synthetic]",
        *(f"+selections.synthetic.{key}={value}" for key, value in study.items()),
        "dset.features=[MelSpectrum]",
        f"cache={folder / 'cache'}",
        f"dora.dir={folder / 'outputs'}",
        "device=cpu",
    ]


def start(code: str, settings: Settings, *more: str) -> None:
    """Run code that prints how many segments its first batch holds.

    Raises
    ------
    RuntimeError : they aren't as many as asked for.
    """
    printed = execute(code, str(settings.n_threads), str(settings.batch_size), *more)
    if printed != str(settings.batch_size):
        raise RuntimeError(f"A batch of {printed} segments instead of {settings.batch_size}.")


def execute(code: str, *more: str) -> str:
    """What Python code prints in a process of its own."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, *more], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout.strip()
