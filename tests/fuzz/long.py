"""Feed every target for so many minutes: python tests/fuzz/long.py minutes=30 [target=NAME].

Half of the time the changes are drawn at random, from whole files and from those that reached
furthest; the other half, where atheris is installed, they are led by what they cover. Prints how
many cases there were; findings go into FOLDER/TARGET-NUMBER.bin (folder=fuzz). Exit code 1 if there
is any.
"""

import faulthandler
import importlib.util
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from types import FrameType

HANGING = 10
"""Seconds that a case may take; it is a few hundred bytes long."""
KEPT = 200


class HangError(Exception):
    """A case that takes too long."""


def main(arguments: list[str]) -> int:
    """Run the targets one after the other, each in processes of its own."""
    options = dict(argument.split("=", 1) for argument in arguments)
    folder = Path(options.get("folder", "fuzz")).absolute()
    folder.mkdir(exist_ok=True)
    names = [options["target"]] if "target" in options else _names()
    has_atheris = importlib.util.find_spec("atheris") is not None
    engines = ["random", "atheris"] if has_atheris else ["random"]
    seconds = float(options.get("minutes", 30)) * 60 / len(names) / len(engines)
    total, bad = 0, False
    for name in names:
        for engine in engines:
            command = [sys.executable, __file__, engine, name, str(seconds), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True)
            last = (done.stdout.strip().splitlines() or ["0"])[-1]
            n_cases = int(last) if last.isdigit() else 0
            total += n_cases
            bad |= done.returncode != 0
            print(
                f"{name:24} {engine:8} {n_cases:10,} cases, exit code {done.returncode}", flush=True
            )
            if done.returncode:
                print("\n".join(done.stderr.splitlines()[-25:]), flush=True)
    print(f"{total:,} cases in all.")
    return int(bad)


def _names() -> list[str]:
    from targets import TARGETS

    return list(TARGETS)


def feed_random(name: str, seconds: float, folder: Path) -> int:
    """Feed changes drawn at random; returns the number of kinds of findings."""
    from targets import TARGETS, change

    target, chance = TARGETS[name], random.Random(os.urandom(8))
    seeds, kept, found = list(target.seeds), [], Counter[str]()
    signal.signal(signal.SIGALRM, _hang)
    end, n_cases = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as place:
        while time.monotonic() < end:
            content = change(chance.choice(seeds + kept if n_cases % 2 else seeds), chance, seeds)
            n_cases += 1
            signal.setitimer(signal.ITIMER_REAL, HANGING)
            try:
                if target(content, Path(place)) and len(content) < 4000:  # changed, and still read
                    kept = [*kept[-KEPT:], content]
            except BaseException as error:
                kind = _kind(error)
                if not found[kind]:
                    (folder / f"{name.replace(' ', '_')}-{len(found)}.bin").write_bytes(content)
                    traceback.print_exc()
                found[kind] += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    print(n_cases)
    return len(found)


def feed_led(name: str, seconds: float, folder: Path) -> int:
    """Feed what atheris makes of the seeds; it ends at the first finding."""
    import atheris

    with atheris.instrument_imports(
        include=["bm.studies", "bm.published", "bm.events", "bm.config"]
    ):
        from targets import TARGETS
    target, n_cases = TARGETS[name], 0
    place = Path(tempfile.mkdtemp(dir=_fast_folder()))
    corpus = place / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)

    def run(content: bytes) -> None:
        nonlocal n_cases
        n_cases += 1
        if n_cases % 100 == 0:
            (folder / f".{name}").write_text(str(n_cases))
        target(content, place)

    prefix = folder / f"{name.replace(' ', '_')}-"
    options = [
        f"-max_total_time={int(seconds)}",
        f"-timeout={HANGING}",
        f"-artifact_prefix={prefix}",
    ]
    child = os.fork()
    if not child:
        atheris.Setup([sys.argv[0], *options, "-max_len=4000", "-rss_limit_mb=0", str(corpus)], run)
        atheris.Fuzz()
    _, status = os.waitpid(child, 0)
    counted = folder / f".{name}"
    print(counted.read_text() if counted.exists() else 0)
    counted.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status)


def _hang(number: int, frame: FrameType | None) -> None:
    raise HangError(f"more than {HANGING} s")


def _kind(error: BaseException) -> str:
    """Type and place of an error."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} {last.filename}:{last.lineno}"


def _fast_folder() -> str | None:
    """Files in memory, where there are such."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if len(sys.argv) == 5 and sys.argv[1] in ("random", "atheris"):
        feed = feed_random if sys.argv[1] == "random" else feed_led
        sys.exit(min(feed(sys.argv[2], float(sys.argv[3]), Path(sys.argv[4])), 100))
    sys.exit(main(sys.argv[1:]))
