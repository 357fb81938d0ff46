"""Preparing ahead: one by one, in processes, on a cluster; and eight cold processes at once."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import submitit
from fixtures.bids import write_study
from helpers import SmallRecording, tell_story

from bm.build import build_data
from bm.config import Config
from bm.core.cache import MANIFEST, Cache, find_fault
from bm.core.hashing import digest, file_checksum
from bm.core.messages import DataError
from bm.events import cut_sounds_at_blocks
from bm.preparation import Outcome, Preparer, prepare_recordings, summary
from bm.recordings import Recording
from bm.segments import prepare as prepare_module
from bm.segments.prepare import BlockRule, SignalSettings, prepare_one
from scripts import prepare as script
from scripts.options import compose
from scripts.prepare import Options, prepare_in_processes, prepare_with

FEATURES = ["dset.features=[MelSpectrum]", "dset.features_params.MelSpectrum.n_mels=8"]
FAKE = [
    *FEATURES,
    "dset.sample_rate=60",
    "+selections.fake.n_minutes=0.5",
    "+selections.fake.n_sensors=4",
    "+selections.fake.n_subjects=2",
]
N_COLD = 8


@pytest.fixture
def study(tmp_path: Path) -> list[str]:
    """Arguments for a BIDS study of three recordings, the first of which is broken."""
    root = tmp_path / "study"
    write_study(root)
    for file in sorted((root / "sub-02").rglob("*.*")):
        copy = root / str(file.relative_to(root)).replace("sub-02", "sub-03")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    (header,) = root.rglob("*_eeg.vhdr")
    header.write_text("This was once a header.")
    return [*FEATURES, f"selections.bids.root={root}", f"cache={tmp_path / 'cache'}"]


def files_of(cache: Path) -> dict[str, str]:
    """Checksum of each file of each entry, by entry and name."""
    return {
        str(file.relative_to(cache)): file_checksum(file)
        for file in sorted(cache.rglob("*"))
        if file.is_file() and file.name != MANIFEST and not file.name.endswith(".lock")
    }


def contents(cache: Path) -> list[tuple[str, str, str]]:
    """Kind, name and checksum of each file; entries of events and blocks hold the cache's path."""
    parts = [(name.split("/"), content) for name, content in files_of(cache).items()]
    return sorted(
        (p[0], p[-1], content) for p, content in parts if p[0] not in ("events", "blocks")
    )


def names_of(outcomes: list[Outcome]) -> list[str]:
    return [outcome.recording for outcome in outcomes]


# One after the other


def test_broken_recording_is_named_and_the_others_go_on(study: list[str]) -> None:
    outcomes = prepare_recordings(compose(["bids"], study))
    assert [bool(outcome.reason) for outcome in outcomes] == [True, False, False]
    assert ".vhdr" in outcomes[0].reason
    text = summary(outcomes)
    assert text.startswith("2 recordings ok, 1 failed:")
    assert text.count(f"{outcomes[0].recording}:") == 1


def test_what_was_prepared_is_not_made_again_in_training(
    study: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(["bids"], study)
    prepare_recordings(config)
    before = files_of(tmp_path / "cache")
    assert {name.split("/")[0] for name in before} == {"blocks", "events", "features", "signals"}

    original: Callable[..., None] = Cache._build

    def build(self: Cache, path: Path, *arguments: Any) -> None:
        assert "sub-01" in path.name  # the broken one, which is tried again
        original(self, path, *arguments)

    monkeypatch.setattr(Cache, "_build", build)
    data = build_data(config, "cpu")
    assert len(data.splits.prepared) == 2
    assert files_of(tmp_path / "cache") == before


def test_blocks_are_found_once_for_each_rule_and_filter(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes from the cache is what was found; another rule or filter finds it anew."""
    recording = SmallRecording(cache, tell_story(tmp_path), "r0")
    rules = [BlockRule(), BlockRule(min_block_duration=12.0), BlockRule(split_wav_as_block=False)]
    found: list[str] = []
    original = prepare_module.divide

    def counted(recording: Recording, rule: BlockRule) -> pd.DataFrame:
        found.append(f"{rule.min_block_duration} {rule.split_wav_as_block}")
        return original(recording, rule)

    monkeypatch.setattr(prepare_module, "divide", counted)
    signal = SignalSettings()
    first = [prepare_one(recording, signal, rule) for rule in rules]
    again = [prepare_one(recording, signal, rule) for rule in rules]
    assert found == ["6.0 True", "12.0 True", "6.0 False"]
    for rule, one, other in zip(rules, first, again, strict=True):
        blocks = original(recording, rule)
        events = recording.events()
        if rule.split_wav_as_block:
            events = cut_sounds_at_blocks(events, blocks)
        for item in (one, other):
            pd.testing.assert_frame_equal(item.blocks, blocks)
            pd.testing.assert_frame_equal(item.events, events)
    recording.events_filter = "word_index == 0"
    few = prepare_one(recording, signal, rules[0])
    assert found[3:] == ["6.0 True"]
    assert (few.events["kind"] == "word").sum() < (first[0].events["kind"] == "word").sum()


def test_sound_that_was_cut_short_since_is_told_at_the_next_start(
    cache: Cache, tmp_path: Path
) -> None:
    recording = SmallRecording(cache, tell_story(tmp_path), "r0")
    prepare_one(recording, SignalSettings(), BlockRule())
    (sound,) = recording.source_files()
    os.truncate(sound, sound.stat().st_size // 2)
    with pytest.raises(DataError, match="truncated"):
        prepare_one(recording, SignalSettings(), BlockRule())


def test_first_broken_recording_stops_all_if_so_asked(study: list[str]) -> None:
    config = compose(["bids"], [*study, "dset.on_bad_recording=error"])
    with pytest.raises(DataError, match="vhdr"):
        prepare_recordings(config)


def test_summary_counts_and_does_not_repeat_names() -> None:
    fine, bad = Outcome("a/1", 1.0), Outcome("a/2", 1.0, "a/2: the file is empty")
    assert summary([fine]) == "1 recording ok, 0 failed."
    assert summary([fine, bad, fine]) == "2 recordings ok, 1 failed:\n  a/2: the file is empty"


def test_recording_without_words_needs_no_features_of_words(
    study: list[str], tmp_path: Path
) -> None:
    (file,) = (tmp_path / "study" / "sub-03").rglob("*_events.tsv")
    header, *lines = file.read_text().splitlines()
    sounds = [line for line in lines if "\tword\t" not in line]
    file.write_text("\n".join([header, *sounds]) + "\n")
    features = "dset.features=[MelSpectrum,WordHash]"
    config = compose(["bids"], [*study, features, "+selections.bids.block_rule=sound"])
    assert [bool(one.reason) for one in prepare_recordings(config)] == [True, False, False]


# Script


def test_script_writes_a_table_and_fails_if_a_recording_does(
    study: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["selections=[bids]", *study, f"out={tmp_path / 'out'}"]) == 1
    table = pd.read_csv(tmp_path / "out" / "prepared.csv", keep_default_na=False)
    assert list(table) == ["recording", "seconds", "reason"]
    assert (table["reason"] != "").sum() == 1
    assert "1 failed:" in capsys.readouterr().out
    rest = "dset.skip_recordings=1"
    assert script.main(["selections=[bids]", *study, rest, f"out={tmp_path / 'out'}"]) == 0


@pytest.mark.slow
def test_processes_find_the_same_as_one_after_the_other(study: list[str], tmp_path: Path) -> None:
    config = compose(["bids"], study)
    names = [str(recording) for recording in Preparer(config).recordings]
    found = dict(prepare_in_processes(config, names, 2))
    shared = files_of(tmp_path / "cache")
    alone = prepare_recordings(compose(["bids"], [*study, f"cache={tmp_path / 'alone'}"]))
    assert [found[index].recording for index in range(len(names))] == names_of(alone)
    assert [found[index].reason for index in range(len(names))] == [one.reason for one in alone]
    assert shared == files_of(tmp_path / "alone")


@pytest.mark.slow
def test_lost_task_of_a_job_array_is_a_reason_for_its_own_recordings(
    study: list[str], tmp_path: Path
) -> None:
    config = compose(["bids"], [*study, "dset.on_bad_recording=error"])
    names = [str(recording) for recording in Preparer(config).recordings]
    executor = submitit.LocalExecutor(tmp_path / "logs")
    found = dict(prepare_with(executor, config, names, group=2, poll=0.2))
    assert [found[index].recording for index in sorted(found)] == names
    reasons = [found[index].reason for index in sorted(found)]
    assert [bool(reason) for reason in reasons] == [True, True, False]
    assert all(reason.startswith("the task failed") for reason in reasons[:2])
    assert "log: " in reasons[0]
    assert len(list((tmp_path / "logs").glob("*_submitted.pkl"))) == 2


@pytest.mark.slurm
def test_real_cluster_prepares_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["selections=[fake]", *FAKE, f"cache={tmp_path / 'cache'}", f"out={tmp_path}"]
    options = ["distributed=true", "group=1", "cpus=1", "mem_gb=2", "hours=0.2"]
    assert script.main([*arguments, *options]) == 0
    assert "2 recordings ok, 0 failed." in capsys.readouterr().out
    assert len(list((tmp_path / "slurm").glob("*_result.pkl"))) == 2
    assert len(list((tmp_path / "cache" / "signals").glob("fake-*"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["n_process=2"], "Did you mean 'n_processes'"),
        (["n_processes=two"], "should be a whole number"),
        (["n_processes=0"], "must be more than 0"),
        (["gpus=1"], "add distributed=true"),
        (["distributed=maybe"], "should be true or false"),
        (["distributed=true", "n_processes=2"], "choose at_once="),
        (["dset.features=[MelSpectrun]"], "Did you mean 'MelSpectrum'"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["selections=[fake]", *FAKE[2:], f"cache={tmp_path}", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_machine_without_slurm_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script.main(["selections=[fake]", *FAKE, f"cache={tmp_path}", "distributed=true"]) == 2
    assert "SLURM can't be reached from here" in capsys.readouterr().err


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--help"]) == 0
    assert script.main([]) == 2
    printed = capsys.readouterr().out
    for option in Options.__dataclass_fields__:
        assert f"{option}=" in printed


# Many at once


def _prepare_cold(barrier: Barrier, config: Config, results: Any, log: Path) -> None:
    """Prepare all recordings at the same moment as others, and note which entries are built."""
    original: Callable[..., None] = Cache._build

    def build(self: Cache, path: Path, *arguments: Any) -> None:
        with open(log, "a") as file:  # appending so few bytes is atomic
            file.write(f"{path.name}\n")
        original(self, path, *arguments)

    Cache._build = build  # type: ignore[method-assign]
    barrier.wait(60)
    outcomes = prepare_recordings(config)
    preparer = Preparer(config)
    data = [np.asarray(one.preprocessed(60.0).data).tolist() for one in preparer.recordings]
    tables = [one.events().to_json() for one in preparer.recordings]
    results.put((digest([data, tables]), [outcome.reason for outcome in outcomes]))


@pytest.mark.slow
def test_eight_cold_processes_prepare_once_and_agree(tmp_path: Path) -> None:
    config = compose(["fake"], [*FAKE, f"cache={tmp_path / 'shared'}"])
    log = tmp_path / "built.txt"
    context = multiprocessing.get_context("forkserver")  # real processes that import bm only once
    context.set_forkserver_preload(["bm.preparation"])
    barrier, results = context.Barrier(N_COLD), context.Queue()
    arguments = (barrier, config, results, log)
    processes = [context.Process(target=_prepare_cold, args=arguments) for _ in range(N_COLD)]
    for process in processes:
        process.start()
    found = [results.get(timeout=90) for _ in processes]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * N_COLD
    assert all(reasons == ["", ""] for _, reasons in found)
    assert len({content for content, _ in found}) == 1

    built = Counter(log.read_text().split())
    entries = [path.parent for path in (tmp_path / "shared").rglob(MANIFEST)]
    assert built == dict.fromkeys((entry.name for entry in entries), 1)
    assert not [fault for fault in map(find_fault, entries) if fault]
    leftovers = [path for path in (tmp_path / "shared").rglob("*") if ".tmp-" in path.name]
    assert not [*leftovers, *(tmp_path / "shared").rglob("*.corrupt-*")]

    prepare_recordings(compose(["fake"], [*FAKE, f"cache={tmp_path / 'alone'}"]))
    assert contents(tmp_path / "alone") == contents(tmp_path / "shared")
