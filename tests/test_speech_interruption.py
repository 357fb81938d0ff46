"""Extraction by several processes: they share the work, and take over from one that is killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from helpers import RATE, write_sound
from small_speech_models import make_model, story

from bm.core.cache import Cache
from bm.features import build_table
from bm.features.speech import SpeechEncoder
from bm.features.speech_models import SpeechModel

SLOW = """
    import os, sys, time
    import pandas as pd
    from pathlib import Path
    from bm.core.cache import Cache
    from bm.features import build_table, registry
    from bm.features.speech_models import SpeechModel

    model, cache, log, events = sys.argv[1:]
    run = SpeechModel._run

    def slow(self, batch):
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\\n" * len(batch))
        time.sleep(0.5)
        return run(self, batch)

    SpeechModel._run = slow
    feature = registry["SpeechEncoder"](model, layers=[1])
    build_table(feature, [pd.read_json(events)], [1200], 120.0, Cache(cache))
"""


@dataclass(frozen=True)
class Extraction:
    """Processes at work by their number, where they keep frames, and who computed how many."""

    processes: dict[int, subprocess.Popen[bytes]]
    cache: Path
    log: Path
    events: pd.DataFrame


def entries(cache: Path) -> dict[str, int]:
    """Finished entries of the cache, and when they were written."""
    found = (cache / "features").glob("[!.]*/entry.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def start(tmp_path: Path, env: dict[str, str], model: Path, *bounds: float) -> Extraction:
    """Two processes that both find an empty cache, and need the same pieces."""
    events = story(write_sound(tmp_path / "story.wav", 8.0), *bounds)
    events.to_json(tmp_path / "events.json")
    cache, log = tmp_path / "cache", tmp_path / "log.txt"
    arguments = [str(path) for path in (model, cache, log, tmp_path / "events.json")]
    command = [sys.executable, "-c", textwrap.dedent(SLOW), *arguments]
    processes = [subprocess.Popen(command, env=env) for _ in range(2)]
    return Extraction({process.pid: process for process in processes}, cache, log, events)


def test_processes_share_the_pieces_and_none_is_computed_twice(tmp_path, python_env, monkeypatch):
    model = make_model(tmp_path / "model", "wav2vec2-base")
    bounds = np.cumsum([0, *np.arange(0.3, 0.9, 0.05)])
    work = start(tmp_path, python_env, model, *bounds)
    assert [process.wait() for process in work.processes.values()] == [0, 0]
    done = work.log.read_text().split()
    assert len(done) == len(entries(work.cache)) == len(bounds) - 1
    assert {int(pid) for pid in done} == set(work.processes)  # both took part
    whole = rows(model, work.events, tmp_path / "other")
    monkeypatch.setattr(SpeechModel, "_run", never)
    np.testing.assert_array_equal(rows(model, work.events, work.cache), whole)


def test_killed_extraction_is_taken_over_where_it_stopped(tmp_path, python_env, monkeypatch):
    model = make_model(tmp_path / "model", "wav2vec2-base")
    work = start(tmp_path, python_env, model, 0.0, 0.3, 0.9, 1.8, 3.0, 5.0, 7.8)
    while len(entries(work.cache)) < 2:
        assert any(process.poll() is None for process in work.processes.values())
        time.sleep(0.02)
    killed = work.processes.pop(int(work.log.read_text().split()[0]))
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    kept = entries(work.cache)
    begun = len(work.log.read_text().split())
    assert 2 <= len(kept) < 6
    (second,) = work.processes.values()
    assert second.wait() == 0
    n_done = len(work.log.read_text().split())
    assert n_done - begun <= 6 - len(kept)  # only what wasn't finished
    assert kept.items() <= entries(work.cache).items()  # and that is as it was
    assert len(entries(work.cache)) == 6
    whole = rows(model, work.events, tmp_path / "other")
    monkeypatch.setattr(SpeechModel, "_run", never)
    np.testing.assert_array_equal(rows(model, work.events, work.cache), whole)


def rows(model: Path, events: pd.DataFrame, cache: Path) -> np.ndarray:
    feature = SpeechEncoder(str(model), layers=[1])
    return build_table(feature, [events], [1200], RATE, Cache(cache)).rows


def never(*args: Any) -> None:
    raise AssertionError("computed again")
