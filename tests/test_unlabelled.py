"""Stretches in which something unknown was heard are in no segment."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import SmallRecording, tell_story

from bm.core.cache import Cache
from bm.events import UNLABELLED
from bm.segments import WindowRule, find_windows
from bm.segments.prepare import BlockRule, SignalSettings, prepare_one

RATE = 120.0
EVERYWHERE = pd.DataFrame([{"kind": "block", "start": 0.0, "duration": np.inf, "uid": "all"}])


def unlabelled(start: float, stop: float) -> dict[str, object]:
    return {"kind": UNLABELLED, "start": start, "duration": stop - start}


@pytest.mark.parametrize(
    ("stretches", "expected"),
    [
        ([], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5]),
        ([(0.0, 2.0)], [2.5, 3.5, 4.5, 5.5, 6.5, 7.5]),  # 2.5 begins where it ends
        ([(0.0, 2.1)], [3.5, 4.5, 5.5, 6.5, 7.5]),
        ([(4.0, 4.1)], [0.5, 1.5, 5.5, 6.5, 7.5]),
        ([(0.0, 1.1), (9.0, 9.5)], [2.5, 3.5, 4.5, 5.5, 6.5]),
    ],
)
def test_no_window_overlaps_a_stretch(
    stretches: list[tuple[float, float]], expected: list[float]
) -> None:
    words = [{"kind": "word", "start": 0.5 + second, "duration": 0.1} for second in range(8)]
    events = pd.DataFrame([*words, *(unlabelled(*stretch) for stretch in stretches)])
    windows = find_windows(events, EVERYWHERE, WindowRule(condition="word"), 1300, RATE)
    assert windows["time"].tolist() == expected


def test_a_filter_leaves_stretches_in_and_blocks_with_nothing_else_out(
    cache: Cache, tmp_path: Path
) -> None:
    story = tell_story(tmp_path, n_sentences=8)
    last = story["start"][story["word_index"] == 0].iloc[-1]
    story = pd.concat([story, pd.DataFrame([unlabelled(last + 1.0, last + 2.0)])])
    recording = SmallRecording(cache, story.sort_values("start", ignore_index=True))
    recording.events_filter = f"start < {last}"
    prepared = prepare_one(recording, SignalSettings(), BlockRule(force_uid_assignement=True))
    assert (prepared.events["kind"] == UNLABELLED).sum() == 1
    assert len(prepared.blocks) == 7
    assert (prepared.blocks["start"] < last).all()
