"""Small recordings with real sound files, for tests of what is made of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd
import soundfile

from bm.core.cache import Cache
from bm.core.hashing import digest
from bm.features import build_table, make_features
from bm.recordings import Recording
from bm.segments import Prepared, SignalStore, Splits, WindowRule, build_splits
from bm.segments.prepare import BlockRule, SignalSettings, prepare

RATE = 120.0
SOUND_RATE = 16_000
PAUSE = 0.3
TRAIN = WindowRule()
RULES = {"train": TRAIN, "valid": TRAIN, "test": WindowRule(condition="word")}
VOCABULARY = "the old sailor saw a white bird over None cold sea and went home again".split()


class SmallRecording(Recording):
    """A recording of noise, EEG at native rate `RATE`, for a given table of events.

    Parameters
    ----------
    cache, events : see `Recording`.
    name, subject, seed : who it is; the noise follows from `seed`.
    n_sensors : sensors, of the easycap-M1 montage if they have a place.
    duration : seconds; None: until 3 s after the last event.
    with_positions : whether sensors have a place.
    """

    def __init__(
        self,
        cache: Cache,
        events: pd.DataFrame,
        name: str = "r0",
        subject: str = "s0",
        seed: int = 0,
        n_sensors: int = 6,
        duration: float | None = None,
        with_positions: bool = True,
        **options: Any,
    ):
        super().__init__("small", subject, name, cache, **options)
        self.table = events
        self.seed = seed
        self.n_sensors = n_sensors
        self.with_positions = with_positions
        stops = events["start"] + events["duration"]
        self.duration = float(stops.max()) + 3.0 if duration is None else duration

    def load_raw(self) -> mne.io.BaseRaw:
        generator = np.random.default_rng(self.seed)
        data = 1e-5 * generator.standard_normal((self.n_sensors, int(self.duration * RATE)))
        montage = mne.channels.make_standard_montage("easycap-M1")
        known = montage.ch_names[1 : self.n_sensors + 1]
        names = known if self.with_positions else [f"X{n}" for n in range(self.n_sensors)]
        raw = mne.io.RawArray(data, mne.create_info(names, RATE, "eeg"), verbose="error")
        return raw.set_montage(montage) if self.with_positions else raw

    def load_events(self) -> pd.DataFrame:
        return self.table

    def source_files(self) -> Sequence[Path]:
        if "filepath" not in self.table:
            return []
        return [Path(path) for path in self.table["filepath"].dropna().unique()]

    @property
    def options(self) -> dict[str, Any]:
        events = digest(self.table.to_json())
        return {"data": [self.seed, self.n_sensors, self.duration, events, self.with_positions]}


def write_sound(path: Path, seconds: float, seed: int = 0) -> Path:
    """Write noise whose loudness goes up and down like that of speech."""
    generator = np.random.default_rng(seed)
    n_samples = round(seconds * SOUND_RATE)
    loudness = 1 + np.sin(2 * np.pi * 3 * np.arange(n_samples) / SOUND_RATE)
    soundfile.write(path, 0.1 * loudness * generator.standard_normal(n_samples), SOUND_RATE)
    return path


def tell_story(
    folder: Path, n_sentences: int = 24, lead_in: float = 1.0, seed: int = 0, name: str = "story"
) -> pd.DataFrame:
    """Events of one sound file with `n_sentences` sentences of 8 to 16 words, 0.3 to 0.5 s each.

    The same seed gives the same sentences at the same places of the file.
    """
    generator = np.random.default_rng(seed)
    time, rows = 0.0, []
    for _ in range(n_sentences):
        words = generator.choice(VOCABULARY, generator.integers(8, 17)).tolist()
        for index, word in enumerate(words):
            duration = round(float(generator.uniform(0.3, 0.5)), 3)
            rows.append(
                {
                    "kind": "word",
                    "start": lead_in + time,
                    "duration": duration,
                    "word": word,
                    "word_index": index,
                    "word_sequence": " ".join(words),
                    "condition": "sentence",
                }
            )
            time = round(time + duration, 3)
        time = round(time + PAUSE, 3)
    path = folder / f"{name}.wav"
    if not path.exists():
        write_sound(path, time, seed)
    sound = {"kind": "sound", "start": lead_in, "duration": time, "filepath": str(path)}
    return pd.DataFrame([{**sound, "offset": 0.0}, *rows])


def make_splits(
    recordings: Sequence[Recording],
    cache: Cache,
    features: Sequence[str] = ("MelSpectrum",),
    residency: str = "host",
    rules: dict[str, WindowRule] | None = None,
    blocks: BlockRule | None = None,
    prepared: Sequence[Prepared] | None = None,
    storage: str = "fp32",
    **options: Any,
) -> Splits:
    """All the way from recordings to splits; `options` go to `build_splits`."""
    if prepared is None:
        prepared = prepare(recordings, SignalSettings(), blocks or BlockRule())
    events = [item.events for item in prepared]
    n_samples = [item.signal.n_samples for item in prepared]
    tables = [
        build_table(feature, events, n_samples, RATE, cache)
        for feature in make_features(features, {"MelSpectrum": {"n_mels": 20}})
    ]
    store = SignalStore([item.signal for item in prepared], residency, storage=storage)
    return build_splits(prepared, tables, rules or RULES, store, **options)


def with_value(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Copy of nested `values` with one dotted key changed."""
    head, _, rest = key.partition(".")
    return {**values, head: with_value(values.get(head, {}), rest, value) if rest else value}
