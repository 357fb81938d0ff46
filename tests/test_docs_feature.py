"""The page about adding a feature: its code runs as it stands there, and what it says is so."""

import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SmallRecording, make_splits, tell_story

import bm.features
from bm.config import from_hydra
from bm.core.messages import DataError
from bm.features import base, make_features
from bm.train import main


@pytest.fixture(scope="module")
def page(root) -> str:
    return (root / "docs" / "adding-a-feature.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def code(page) -> list[str]:
    """The blocks of Python: two features, and a look at them."""
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    return blocks


@pytest.fixture
def files(page, code, tmp_path) -> list[Path]:
    """The two features, each in the file that the page says."""
    names = re.findall(r"^`bm/features/(\w+)\.py`", page, flags=re.MULTILINE)
    assert names == ["loudness", "vowels"]
    paths = [tmp_path / f"page_{name}.py" for name in names]
    for path, block in zip(paths, code, strict=False):
        path.write_text(block)
    return paths


@pytest.fixture
def known(files, monkeypatch) -> Iterator[None]:
    """The two features are in the registry while the test runs."""
    monkeypatch.setattr(base, "registry", dict(base.registry))
    monkeypatch.syspath_prepend(files[0].parent)
    for path in files:
        importlib.import_module(path.stem)
    yield
    for path in files:
        del sys.modules[path.stem]


def test_a_feature_takes_less_than_30_lines(code):
    assert [len(block.splitlines()) for block in code[:2]] == [29, 15]


def test_page_prints_what_it_says(page, code, files, python_env):
    imports = "".join(f"import {path.stem}\n" for path in files)
    folder = files[0].parent
    env = {**python_env, "PYTHONPATH": f"{python_env['PYTHONPATH']}:{folder}"}
    command = [sys.executable, "-W", "error", "-c", imports + code[2]]
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"```\n{run.stdout}```" in page


def test_new_features_take_their_arguments(known):
    loudness, vowels = make_features(["Loudness", "VowelCount"], {"Loudness": {"floor": -50}})
    assert (loudness.default, loudness.key) == (-50, {"floor": -50})
    assert (vowels.default, vowels.dimension) == (0, 1)
    with pytest.raises(ValueError, match=r"Loudness has no 'flor'.*mean 'floor'"):
        make_features(["Loudness"], {"Loudness": {"flor": -50}})
    with pytest.raises(ValueError, match=r"dset\.features='Loudnes'.*mean 'Loudness'"):
        make_features(["Loudnes"], {})
    with pytest.raises(DataError, match="shorter than 10 ms"):
        loudness.frames(torch.zeros(100))


def test_command_of_the_page_configures_them(page):
    command = re.search(r"^dora run (.*)$", page, flags=re.MULTILINE)
    config = from_hydra(main.get_xp(command[1].split()).cfg)
    assert config.dset.features == ["Loudness", "VowelCount"]
    assert config.dset.features_params["Loudness"] == {"floor": -50}


def test_new_features_reach_the_segments_side_by_side(known, tmp_path, cache):
    recordings = [SmallRecording(cache, tell_story(tmp_path), f"r{k}", f"s{k}", k) for k in (0, 1)]
    splits = make_splits(recordings, cache, ["Loudness", "VowelCount", "MelSpectrum"])
    features = splits.datasets["train"].gather(torch.arange(20)).features
    assert features.shape[1] == 1 + 1 + 20
    loudness, vowels = features[:, 0], features[:, 1]
    assert -60 <= loudness.min() < loudness.max() < 0
    assert set(np.unique(vowels)) == {0, 1, 2, 3}


def test_line_to_change_is_there(page):
    line = re.search(r"`(from bm\.features import) loudness", page)
    assert f"\n{line[1]} " in inspect.getsource(bm.features)
