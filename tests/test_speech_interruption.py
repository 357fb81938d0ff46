"""Extraction by several processes: one works, the others wait, and take over if it is killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
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


def entries(cache: Path) -> dict[str, int]:
    """Finished entries of the cache, and when they were written."""
    found = (cache / "features").glob("[!.]*/entry.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in found}


def test_killed_extraction_is_taken_over_where_it_stopped(tmp_path, python_env, monkeypatch):
    model = make_model(tmp_path / "model", "wav2vec2-base")
    cache, log = tmp_path / "cache", tmp_path / "log.txt"
    events = story(write_sound(tmp_path / "story.wav", 8.0), 0.0, 0.3, 0.9, 1.8, 3.0, 5.0, 7.8)
    events.to_json(tmp_path / "events.json")
    arguments = [str(path) for path in (model, cache, log, tmp_path / "events.json")]
    command = [sys.executable, "-c", textwrap.dedent(SLOW), *arguments]
    processes = {}
    for _ in range(2):  # both find an empty cache
        process = subprocess.Popen(command, env=python_env)
        processes[process.pid] = process
    while len(entries(cache)) < 3:
        assert any(process.poll() is None for process in processes.values())
        time.sleep(0.02)
    first, *others = set(log.read_text().split())
    assert not others  # one computes, the other waits
    killed = processes.pop(int(first))
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    now = time.time_ns()
    (second,) = processes.values()
    assert second.wait() == 0
    kept = [written for written in entries(cache).values() if written <= now]
    assert 3 <= len(kept) < 6
    assert log.read_text().split().count(str(second.pid)) == 6 - len(kept)
    whole = rows(model, events, tmp_path / "other")
    monkeypatch.setattr(SpeechModel, "_run", never)
    np.testing.assert_array_equal(rows(model, events, cache), whole)


def rows(model: Path, events: pd.DataFrame, cache: Path) -> np.ndarray:
    feature = SpeechEncoder(str(model), layers=[1])
    return build_table(feature, [events], [1200], RATE, Cache(cache)).rows


def never(*args: Any) -> None:
    raise AssertionError("computed again")
