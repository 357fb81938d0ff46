"""Check that a study, such as one of your own, keeps what bm expects of every study.

Usage: python -m scripts.check_study NAME [KEY=VALUE ...]

NAME is a selection of the configuration (bids, gwilliams2022, one of yours), or a study.

  recordings=N       look into the first N recordings (3); 0: all
  KEY=VALUE          any key of the configuration, such as plugins=[my_study.py] and
                     +selections.mine='{study: mine, path: /data/mine}'

Asks whether there are recordings, each with a name of its own, and the same ones when asked again;
whether each can be read from its beginning to its end, with sensors that have places; whether its
events make sense, its sounds are there and long enough, and its words lie within sounds; whether
blocks can be divided among the splits, and whether the same sentence is in the same split for all.
What is computed is kept in the cache.

For example:
  python -m scripts.check_study fake
  python -m scripts.check_study bids selections.bids.root=/data/mine recordings=0

Exit code: 0 if all is as it should be (there may be warnings), 1 if not, 2 for a wrong argument.
"""

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bm.build import build_recordings, build_rules, build_windows
from bm.config import Config
from bm.core.layout import NO_POSITION
from bm.core.messages import DataError
from bm.recordings import Recording
from bm.segments.prepare import Prepared, prepare_one
from bm.segments.windows import find_windows
from scripts.command import command
from scripts.options import UsageError, compose, divide
from scripts.terminal import Finding

FEW_BLOCKS = 20
"""Fewer blocks than that, over all that was looked at, leave hardly anything to test on."""
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Options:
    """What the command line asks for, beside the configuration."""

    recordings: int = 3


@command(__doc__, logging.ERROR)
def main(arguments: Sequence[str]) -> int:
    """Check the study that the arguments name; returns the exit code."""
    name, *rest = arguments
    if "=" in name:
        raise UsageError(f"{name}: the first argument is the name of a selection or study.")
    values, overrides = divide(Options, rest)
    options = Options(**values)
    config = find_selection(name, overrides)
    n_failed = 0
    for finding in check(config, options.recordings or None):
        print(finding)
        n_failed += finding.state == "fail"
    print(f"{n_failed} thing(s) to mend." if n_failed else "All is as it should be.")
    return int(n_failed > 0)


def find_selection(name: str, overrides: Sequence[str]) -> Config:
    """Configuration that selects a study, by the name of the selection or of the study itself."""
    config = compose([name], overrides)
    if name in config.selections:
        return config
    return compose([name], [*overrides, f"+selections.{name}={{study: {name}}}"])


def check(config: Config, n_recordings: int | None = 3) -> Iterator[Finding]:
    """All findings, one after the other.

    Parameters
    ----------
    config : that selects the study.
    n_recordings : look into the first so many; None: all.
    """
    try:
        recordings, again = build_recordings(config), build_recordings(config)
    except (ValueError, OSError, ImportError) as error:
        yield Finding("recordings", "fail", str(error))
        return
    yield _check_list(recordings, again)
    prepared = []
    for recording in recordings[:n_recordings]:
        try:
            item = prepare_one(recording, *build_rules(config.dset))
        except (DataError, OSError) as error:
            yield Finding("recording", "fail", str(error))
            continue
        prepared.append(item)
        yield from check_recording(item, config)
    if prepared:
        yield from check_splits(prepared, config)


def _check_list(recordings: Sequence[Recording], again: Sequence[Recording]) -> Finding:
    names = [str(one) for one in recordings]
    if not names:
        return Finding("recordings", "fail", "none", "is the path right? recordings() yields them")
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        remedy = "recording_uid must be unique within the study"
        return Finding("recordings", "fail", f"{twice[0]} comes twice", remedy)
    if names != [str(one) for one in again]:
        remedy = "sort what is found on disk"
        return Finding("recordings", "fail", "another order when asked again", remedy)
    n_subjects = len({one.subject_uid for one in recordings})
    return Finding("recordings", "ok", f"{len(names)} of {n_subjects} subject(s)")


def check_recording(item: Prepared, config: Config) -> Iterator[Finding]:
    """Findings about a recording that could be prepared."""
    name, signal, events = str(item.recording), item.signal, item.events
    missing = [file for file in item.recording.source_files() if not file.is_file()]
    if missing or not item.recording.source_files():
        text = f"{name}: {missing[0]} is no file" if missing else f"{name}: source_files() is empty"
        yield Finding("files", "fail", text, "name all files that raw and events come from")
    places = signal.sensors.places(config.dset.sensor_dimensions)
    n_placed = int((places != NO_POSITION).all(axis=1).sum())
    text = f"{name}: {len(places)}, {n_placed} with a place, {signal.duration:.1f} s"
    state = "ok" if n_placed else "warn"
    remedy = "" if n_placed else "raw.set_montage(...), or simpleconv.merger=false"
    yield Finding("sensors", state, text, remedy)
    counts = ", ".join(f"{n} {kind}" for kind, n in events["kind"].value_counts().items())
    yield Finding("events", "ok", f"{name}: {counts}")
    yield from _check_words(item)


def _check_words(item: Prepared) -> Iterator[Finding]:
    """Words should be heard while a sound plays, and know their sentence."""
    events, name = item.events, str(item.recording)
    words, sounds = (events[events["kind"] == kind] for kind in ("word", "sound"))
    if not len(words):
        text = f"{name}: none, so test segments need a stride"
        yield Finding("words", "warn", text, "dset.test.condition=0.5, and block_rule='sound'")
        return
    lacking = [key for key in ("word_index", "word_sequence") if key not in words]
    if lacking:
        remedy = "the place in the sentence, and the sentence: test segments are known by them"
        yield Finding("words", "fail", f"{name}: no {' and no '.join(lacking)}", remedy)
    if len(sounds):
        starts = sounds["start"].to_numpy(float)
        stops = starts + sounds["duration"].to_numpy(float)
        onsets = words["start"].to_numpy(float)[:, None]
        n_silent = int((~((onsets >= starts - 0.05) & (onsets < stops)).any(axis=1)).sum())
        if n_silent:
            text = f"{name}: {n_silent} of {len(words)} begin while no sound plays"
            yield Finding("words", "warn", text, "python -m scripts.check_alignment")


def check_splits(prepared: Sequence[Prepared], config: Config) -> Iterator[Finding]:
    """Findings about blocks, over all recordings that were looked at."""
    splits_of = defaultdict(set)
    for item in prepared:
        for uid, split in zip(item.blocks["uid"], item.blocks["split"], strict=True):
            splits_of[uid].add(split)
    torn = [uid for uid, splits in splits_of.items() if len(splits) > 1]
    if torn:
        yield Finding("splits", "fail", f"{torn[0][:60]!r} is in {splits_of[torn[0]]}")
    windows = build_windows(config.dset)
    n_segments = {
        split: sum(
            len(
                find_windows(
                    item.events, item.blocks[item.blocks["split"] == split], windows[split],
                    item.signal.n_samples, item.signal.sample_rate,
                )
            )
            for item in prepared
        )
        for split in SPLITS
    }  # fmt: skip
    lengths = np.concatenate([item.blocks["duration"] for item in prepared])
    lengths = lengths[np.isfinite(lengths)]
    median = f", median {np.median(lengths):.1f} s" if len(lengths) else ""
    counted = ", ".join(f"{n} {split}" for split, n in n_segments.items())
    text = f"{len(splits_of)} different blocks{median}; segments: {counted}"
    if not all(n_segments.values()):
        yield Finding("splits", "fail", text, "more or longer blocks: block_rule, word_index")
    elif len(splits_of) < FEW_BLOCKS:
        yield Finding("splits", "warn", text, f"fewer than {FEW_BLOCKS} blocks: little to test on")
    else:
        yield Finding("splits", "ok", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
