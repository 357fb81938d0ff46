"""Broken and crafted files: bm's own errors come out, nothing else; the same cases each time."""

import json
import logging
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from targets import TARGETS, change

from bm.core.messages import DataError
from bm.events import validate_events

FEW = {"configuration": 12, "sound files": 60, "MP3 files": 30}
HELD = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each broken file would have its warning."""
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)


@pytest.mark.parametrize("name", TARGETS)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    for seed in TARGETS[name].seeds:
        if name != "published checkpoints":  # of which the seed is only the container
            assert TARGETS[name](seed, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    target, chance = TARGETS[name], random.Random(name)
    n_refused = 0
    for _ in range(FEW.get(name, 150)):
        content = change(chance.choice(target.seeds), chance, target.seeds)
        n_refused += not target(content, tmp_path)
    assert n_refused or name == "manifests of downloads"  # which are made anew


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.floats(), st.integers(), st.text(max_size=5), st.booleans(),
    st.sampled_from(["word", "sound", "phoneme", "1.5", "nan", "-1"]), st.just([1]),
    st.binary(max_size=3),
)  # fmt: skip
COLUMNS = ("kind", "start", "duration", "word", "offset", "filepath", "phoneme", "word_index")


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=HELD)
@given(
    st.lists(st.sampled_from(COLUMNS), unique=True, max_size=8).flatmap(
        lambda names: st.lists(
            st.fixed_dictionaries(dict.fromkeys(names, VALUES)), min_size=1, max_size=5
        )
    ),
    st.floats(0, 100),
)
def test_any_table_of_events_is_cleaned_or_refused(
    rows: list[dict[str, Any]], duration: float
) -> None:
    try:
        events = validate_events(pd.DataFrame(rows), duration, "fuzz")
    except DataError:
        return
    assert events["start"].between(0, duration, inclusive="left").all()
    assert (events["duration"] >= 0).all()
    assert events["start"].is_monotonic_increasing


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["words", "case", "word", "start", "end", "phones", "phone", "duration",
                             "transcript", "startOffset", "endOffset", "RecordingDuration"]),
            inner, max_size=5,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=HELD)
@given(st.dictionaries(st.sampled_from(["words", "transcript", "RecordingDuration"]), JSON))
def test_any_json_is_read_or_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    for name in ("Gentle JSON", "BIDS sidecars"):
        TARGETS[name](json.dumps(content).encode(), tmp_path)
