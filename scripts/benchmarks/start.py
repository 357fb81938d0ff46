"""From nothing to the first batch, once all is prepared: a warm start.

Options:
  n_recordings=4    of the simulated study, of one listener each
  minutes=10.0      of each
  n_sensors=102     at most 102
  batch_size=64
  n_threads=1       of torch
  repeats=5

Unit: s, until a fresh process has its first batch, imports included; both find their modules
compiled, as any Python does that may write them. The reference opens files at the rate of
training, reads 200 segments of each recording to fit its scaler, and assembles a batch; see
`scripts.benchmarks.parts.plain_start`. bm's first start, which compiles, simulates and prepares
all, is shown as "bm, cold"; "import bm" is what the package itself takes.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scripts.benchmarks.parts import memory
from scripts.benchmarks.parts.measure import Row, in_turn, rows_of
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
batches = SegmentLoader(splits.datasets["train"], int(batch_size)).epoch(0)
print(len(scaler(next(batches))), flush=True)
"""
UNCOMPILED = "PYTHONDONTWRITEBYTECODE"
"""Environment variable that makes each start compile what isn't installed, bm alone."""
IMPORT = """
import bm
print(0, flush=True)
"""
THEIRS = """
import sys
from scripts.benchmarks.parts.plain_start import first_batch
n_threads, batch_size, folder = sys.argv[1:]
print(len(first_batch(folder, int(batch_size), int(n_threads))), flush=True)
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
        ours = partial(start, OURS, folder, settings, *arguments(folder, settings))
        theirs = partial(start, THEIRS, folder, settings, str(folder))
        cold = ours()
        cases: dict[str, Callable[[], float]] = {
            PLAIN: theirs,
            "bm, warm": ours,
            "import bm": partial(execute, IMPORT, folder, "0"),
        }
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


def start(code: str, folder: Path, settings: Settings, *more: str) -> float:
    """Seconds until code that is given these arguments has its first batch, of the right size."""
    size = str(settings.batch_size)
    return execute(code, folder, size, str(settings.n_threads), size, *more)


def execute(code: str, folder: Path, expected: str, *more: str) -> float:
    """Seconds until Python code, in a process of its own, prints what is expected.

    Parameters
    ----------
    code : prints one line.
    folder : where its log is kept.
    expected : the line.
    more : arguments.

    Raises
    ------
    RuntimeError : it fails, or prints something else.
    """
    root = Path(__file__).parents[2]
    environment = {key: os.environ[key] for key in os.environ if key != UNCOMPILED}
    log = folder / "log.txt"
    begin = time.perf_counter()
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", code, *more],
            cwd=root, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        printed = process.stdout.readline().strip()
        duration = time.perf_counter() - begin
    if process.returncode or printed != expected:
        said = log.read_text()[-2000:]
        raise RuntimeError(f"A start printed {printed!r} instead of {expected!r}. {said}")
    return duration
