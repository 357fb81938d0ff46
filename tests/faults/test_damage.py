"""Truncated files and flipped bits: found, set aside and made anew, or named; never believed."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fault_suite import Processes, Reference, Tally
from stages import finished

from bm.checkpoint import CHECKPOINT, read_checkpoint
from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.recordings.sound import read_sound, sound_digest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

Damage = Callable[[Path, random.Random], None]


def truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def flip_bit(path: Path, chance: random.Random) -> None:
    place = chance.randrange(path.stat().st_size)
    with open(path, "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1 << chance.randrange(8)]))


DAMAGES: dict[str, Damage] = {"truncated": truncate, "one bit flipped": flip_bit}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entries_of_the_cache_are_made_anew(
    damage: str, reference: Reference, tally: Tally, often: bool, tmp_path: Path
) -> None:
    """Every file of every entry, one at a time; `build` copies what the entry held."""
    chance = random.Random(damage)
    cache = tmp_path / "cache"
    shutil.copytree(reference.folder / "cache", cache)
    files = sorted(path for path in cache.glob("*/[!.]*/*"))
    for path in files if often else chance.sample(files, 12):
        entry = path.parent
        whole = reference.folder / "cache" / entry.relative_to(cache)
        before = path.read_bytes()
        DAMAGES[damage](path, chance)
        if path.read_bytes() == before:
            continue  # nothing was cut off
        wrong = rebuild(Cache(cache), entry, whole) != whole_content(whole)
        aside = list(entry.parent.glob(f"{entry.name}.corrupt-*"))
        wrong |= not aside and path.name != "entry.json"  # whose key is there for people alone
        tally.add(f"cache entry {damage}", 0, int(wrong))
        shutil.rmtree(entry)
        shutil.copytree(whole, entry)
        for folder in aside:
            shutil.rmtree(folder)


def rebuild(cache: Cache, entry: Path, whole: Path) -> dict[str, bytes]:
    """Ask the cache for a damaged entry; what it then holds."""

    def build(folder: Path) -> None:
        for name, content in whole_content(whole).items():
            (folder / name).write_bytes(content)

    key = json.loads((whole / "entry.json").read_text())["key"]
    label = entry.name.rpartition("-")[0]
    found = cache.entry(entry.parent.name, key, build, label)
    assert found == entry
    return whole_content(found)


def whole_content(entry: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in entry.iterdir() if path.name != "entry.json"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_run_on_a_damaged_cache_gives_what_it_should(
    damage: str,
    reference: Reference,
    processes: Processes,
    tally: Tally,
    often: bool,
    tmp_path: Path,
) -> None:
    chance = random.Random(damage)
    for number in range(10 if often else 1):
        folder = reference.begin("checkpointing", tmp_path / str(number))
        for kind in ("signals", "events", "features"):
            files = sorted((folder / "cache" / kind).glob("[!.]*/*"))
            DAMAGES[damage](chance.choice(files), chance)
        processes.finish("feature extraction", folder)
        wrong = sum(
            finished(stage, folder) != reference.results[stage]
            for stage in ("preprocessing", "feature extraction")
        )
        tally.add(f"run on a cache with entries {damage}", 0, wrong)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_named_or_holds_the_same(
    damage: str, reference: Reference, tally: Tally, often: bool, tmp_path: Path
) -> None:
    chance = random.Random(damage)
    whole = reference.folder / "xp" / CHECKPOINT
    expected = reference.results["checkpointing"]
    copy = tmp_path / "xp" / CHECKPOINT
    copy.parent.mkdir()
    for _ in range(300 if often else 20):
        shutil.copy(whole, copy)
        DAMAGES[damage](copy, chance)
        try:
            read_checkpoint(copy)
            wrong = finished("checkpointing", tmp_path) != expected
        except ValueError as error:
            wrong = str(copy) not in str(error)
        tally.add(f"checkpoint {damage}", 0, int(wrong))


@pytest.mark.parametrize("name", ["story.wav", "story.flac", "story.ogg", "story.mp3"])
def test_damaged_sound_is_named_or_is_another_sound(
    name: str, tally: Tally, often: bool, tmp_path: Path
) -> None:
    """A flipped bit in PCM samples can't be seen; then the key of its features is another one."""
    chance = random.Random(name)
    noise = 0.1 * np.random.default_rng(0).standard_normal(32_000)
    whole = tmp_path / name
    soundfile.write(whole, noise, 16_000)
    of_whole = sound_digest(whole)
    for number in range(100 if often else 5):
        for damage, spoil in DAMAGES.items():
            path = tmp_path / f"{number}-{damage}-{name}"
            shutil.copy(whole, path)
            spoil(path, chance)
            try:
                samples = read_sound(path, 0.0, 2.0)
                wrong = not samples.isfinite().all() or sound_digest(path) == of_whole
            except DataError as error:
                wrong = str(path) not in str(error)
            tally.add(f"sound file {damage}", 0, int(wrong))


def test_writer_of_checkpoints_keeps_their_checksums() -> None:
    """What `read_checkpoint` relies on is torch's default, which a caller could turn off."""
    assert torch.serialization.get_crc32_options()
