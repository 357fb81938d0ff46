"""Recordings that can't be used are set aside, and named again at the end."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import SmallRecording, tell_story

from bm.build import build_solver
from bm.config import Config, from_hydra
from bm.core.messages import DataError
from bm.recordings import Recording
from bm.segments.prepare import list_aside
from bm.studies import Study, registry
from bm.train import main
from scripts.evaluate import evaluate_solver

TINY = [
    "+selections.spoilt.study=spoilt",
    "dset.selections=[spoilt]",
    "dset.features=[MelSpectrum]",
    "dset.features_params.MelSpectrum.n_mels=8",
    "dset.sample_rate=60",
    "simpleconv.hidden.meg=6",
    "simpleconv.depth=2",
    "simpleconv.initial_linear=5",
    "simpleconv.merger_channels=5",
    "simpleconv.merger_pos_dim=8",
    "optim.epochs=1",
    "optim.max_batches=3",
    "device=cpu",
]


class SpoiltStudy(Study):
    """Two good recordings, one without its sound, and one whose sound breaks off inside."""

    name = "spoilt"
    folder: ClassVar[Path]

    def recordings(self) -> Iterator[Recording]:
        good = tell_story(self.folder, n_sentences=20)
        sound = good["kind"] == "sound"
        gone = good.assign(filepath=good["filepath"].where(~sound, str(self.folder / "<b>.wav")))
        broken = good.assign(filepath=good["filepath"].where(~sound, str(spoil(self.folder))))
        tables: list[pd.DataFrame] = [good, gone, broken, good]
        for number, events in enumerate(tables):
            yield SmallRecording(self.cache, events, f"r{number}", f"s{number}", number)


def spoil(folder: Path) -> Path:
    """The story as FLAC, with noise in place of a part of its middle."""
    path = folder / "story.flac"
    if not path.exists():
        soundfile.write(path, *soundfile.read(folder / "story.wav"))
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        noise = np.random.default_rng(0).bytes(200_000)
        content[middle : middle + len(noise)] = noise
        path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    SpoiltStudy.folder = tmp_path_factory.mktemp("spoilt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry, "spoilt", SpoiltStudy)
        yield from_hydra(main.get_xp([*TINY, f"cache={SpoiltStudy.folder / 'cache'}"]).cfg)


def test_bad_recordings_are_set_aside_and_named_in_the_report(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        solver = build_solver(config, tmp_path)
    aside = solver.splits.set_aside
    assert solver.splits.recordings == ["small/r0", "small/r3"]
    assert list(aside) == ["small/r1", "small/r2"]
    assert "<b>.wav is missing" in aside["small/r1"]
    assert "story.flac" in aside["small/r2"]
    assert caplog.text.count("Set aside: small/r2: ") == 1
    assert "2 recording(s) set aside, 2 used:" in caplog.text
    solver.run()
    page = evaluate_solver(solver).report.read_text()
    assert "2 recordings (2 set aside, see below)" in page
    assert "&lt;b&gt;.wav is missing" in page
    assert "small/r2: " in page
    assert "<b>.wav" not in page


def test_sound_that_breaks_off_stops_the_run_if_it_is_to(config: Config, tmp_path: Path) -> None:
    values = {**vars(config.dset), "on_bad_recording": "error", "skip_recordings": 2}
    stopping = Config(**{**vars(config), "dset": type(config.dset)(**values)})
    with pytest.raises(DataError, match=r"story\.flac"):
        build_solver(stopping)


def test_end_of_a_run_lists_each_with_its_reason() -> None:
    aside = {"study/a": "study/a: no events", "study/b": "study/b: row 7 is empty"}
    assert list_aside(aside, 5).splitlines() == [
        "2 recording(s) set aside, 5 used:",
        "  study/a: no events",
        "  study/b: row 7 is empty",
    ]
