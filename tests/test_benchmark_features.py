"""The bench of speech models: both ways give the same frames, and every figure is there."""

import numpy as np
import pytest

from scripts.benchmarks import features
from scripts.benchmarks.features import (
    HALFWAY,
    OURS,
    PLAIN,
    Settings,
    load,
    make_pieces,
    save_model,
)

SMALL = Settings(
    n_pieces=2, hidden_size=16, n_layers=3, n_heads=2, layers=[1, 2], n_threads=1, repeats=1
)


def test_all_cases_give_the_same_frames_of_the_same_pieces(tmp_path):
    folder = save_model(tmp_path, SMALL)
    pieces = [piece[:9000] for piece in make_pieces(3)]
    frames = {kind: load(kind, folder, SMALL)(pieces) for kind in (PLAIN, HALFWAY, OURS)}
    assert [one.shape for one in frames[PLAIN]] == [(27, 16)] * 3
    for kind in (HALFWAY, OURS):
        assert features.largest_difference(frames[PLAIN], frames[kind]) < 1e-4
    other = [one + 0.5 for one in frames[OURS]]
    assert features.largest_difference(other, frames[OURS]) == pytest.approx(0.5)


def test_pieces_are_as_long_as_blocks():
    seconds = np.array([len(piece) / 16_000 for piece in make_pieces(50)])
    assert 6 <= seconds.min() < 7
    assert 9 < seconds.max() < 11
    assert 0.09 < make_pieces(1)[0].std() < 0.11


@pytest.mark.slow
def test_bench_reports_speed_memory_and_difference():
    rows = features.run(SMALL)
    assert [(row.case, row.unit) for row in rows] == [
        (PLAIN, "s/s"), (HALFWAY, "s/s"), (OURS, "s/s"), (PLAIN, "GB"), (OURS, "GB"),
        (OURS, "difference"),
    ]  # fmt: skip
    speed, memory = rows[2], rows[4]
    assert speed.ratio == pytest.approx(speed.median / rows[0].median)
    assert 0.2 < memory.median < 5
    assert memory.ratio == pytest.approx(rows[3].median / memory.median)
    assert 0 <= rows[5].median < 1e-4
