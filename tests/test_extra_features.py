"""Features of the test segments that aren't decoded: their values at the anchors, in the tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import SmallRecording, make_splits, tell_story

import bm.build
from bm.build import build_data, build_solver
from bm.config import Config, from_dict
from bm.core.cache import Cache
from bm.evaluation.tables import metadata_table
from bm.features import FeatureTable
from bm.features.words import WordHash, WordLength
from bm.preparation import Preparer
from bm.segments.anchors import add_anchor_values

EXTRA = ["WordLength", "WordPulse", "MelSpectrum"]
SMALL = {
    "hidden": {"meg": 4}, "depth": 2, "merger": True, "merger_channels": 4, "merger_pos_dim": 8,
    "initial_linear": 4, "subject_dim": 0,
}  # fmt: skip


@pytest.fixture
def recordings(cache: Cache, tmp_path: Path, monkeypatch) -> list[SmallRecording]:
    """Two people who hear the same story, one of them later."""
    made = [
        SmallRecording(cache, tell_story(tmp_path, lead_in=1.004 + k), f"r{k}", f"s{k}", k)
        for k in (0, 1)
    ]
    monkeypatch.setattr(bm.build, "build_recordings", lambda config: made)
    return made


def experiment(cache: Cache, extra: list[str]) -> Config:
    params = {"MelSpectrum": {"n_mels": 3}}
    dset = {"features": ["WordHash"], "extra_test_features": extra, "features_params": params}
    dset["test"] = {"condition": "word"}
    return from_dict(
        {
            "cache": str(cache.folder), "device": "cpu", "dset": dset, "simpleconv": SMALL,
            "optim": {"loss": "mse", "epochs": 1, "max_batches": 1},
        }
    )  # fmt: skip


def test_test_segments_carry_the_values_of_their_anchors(recordings, cache):
    data = build_data(experiment(cache, EXTRA), "cpu")
    table = data.splits.datasets["test"].table
    np.testing.assert_array_equal(table["feature.WordLength"], table["word"].str.len())
    assert (table["feature.WordPulse"] == 1).all()  # at the very onset
    assert set(table) >= {f"feature.MelSpectrum.{band}" for band in range(3)}
    assert table["feature.MelSpectrum.1"].std() > 0.1
    train = data.splits.datasets["train"]
    assert not [name for name in train.table if name.startswith("feature.")]
    assert train.n_features == 1  # and none of it is decoded
    assert [feature.name for feature in data.features] == ["WordHash"]


def test_values_are_written_beside_the_ranks(recordings, cache):
    solver = build_solver(experiment(cache, ["WordLength"]))
    solver.run()
    found = metadata_table(solver.retrieve(), solver.splits.subjects, solver.splits.recordings)
    assert list(found)[-1] == "feature.WordLength"
    np.testing.assert_array_equal(found["feature.WordLength"], found["word"].str.len())


def test_values_are_prepared_ahead(recordings, cache, monkeypatch):
    monkeypatch.setattr("bm.preparation.build_recordings", lambda config: recordings)
    assert Preparer(experiment(cache, ["MelSpectrum"])).prepare(0).reason == ""
    assert list(cache.folder.glob("features/MelSpectrum-*"))


def test_anchor_at_the_end_of_a_recording_has_its_last_value():
    rows = np.array([[0.0], [5.0], [7.0]], dtype=np.float32)
    timeline = np.array([0, 1, 2], dtype=np.int32)
    table = pd.DataFrame({"recording": [0, 0, 0], "time": [0.0, 0.005, 0.0251]})
    feature = FeatureTable(WordLength(), rows, [timeline])
    values = add_anchor_values(table, [feature], 120.0)["feature.WordLength"]
    assert values.tolist() == [0.0, 5.0, 7.0]


def test_without_extra_features_nothing_is_added(recordings, cache):
    splits = make_splits(recordings, cache, ["WordHash"])
    table = splits.datasets["test"].table
    pd.testing.assert_frame_equal(add_anchor_values(table, [], 120.0), table)
    assert WordHash().name not in "".join(table)
