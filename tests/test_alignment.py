"""The check of alignment: planted errors are found, chance is not taken for a response."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd
import pytest
import soundfile

from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.evaluation.alignment import (
    MISALIGNED,
    NOTHING_FOUND,
    OK,
    check_alignment,
    pool_row,
    table_row,
)
from bm.recordings import Recording
from bm.studies import Study, registry
from bm.studies.synthetic import Fake, SyntheticRecording
from scripts import check_alignment as script
from scripts.options import UsageError, read_options

RATE = 60.0


class ShiftedRecording(SyntheticRecording):
    """A simulated recording whose events are `shift` seconds late."""

    shift = 0.0
    kinds: tuple[str, ...] = ("sound", "word", "phoneme")

    def load_events(self) -> pd.DataFrame:
        events = super().load_events()
        events.loc[events["kind"].isin(self.kinds), "start"] += self.shift
        return events

    def event_key(self) -> dict[str, Any]:
        return {"shift": self.shift, "kinds": list(self.kinds)}


Make = Callable[..., ShiftedRecording]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alignment")


@pytest.fixture(scope="module")
def make(folder: Path) -> Make:
    def build(
        shift: float = 0.0, kinds: tuple[str, ...] = ShiftedRecording.kinds, **options: Any
    ) -> ShiftedRecording:
        study = Fake(**{"n_minutes": 2.0, "snr": 0.2, **options}, cache=Cache(folder))
        recording = ShiftedRecording("shifted", study.experiment, 0, 0, True)
        recording.shift, recording.kinds = shift, kinds
        return recording

    return build


class Recorded(Recording):
    """Noise, and auxiliary channels one of which copies the sound `delay` seconds after it."""

    def __init__(self, folder: Path, delay: float, has_words: bool = True, seconds: float = 70.0):
        super().__init__("recorded", "s", f"r{delay}", Cache(folder / "cache"))
        self.delay, self.has_words, self.seconds = delay, has_words, seconds
        self.file = folder / "sound.wav"
        generator = np.random.default_rng(0)
        loudness = np.repeat(generator.uniform(0, 1, round(seconds * 10)) ** 3, 1600)
        self.sound = 0.1 * loudness * generator.standard_normal(len(loudness))
        soundfile.write(self.file, self.sound, 16_000)

    def load_raw(self) -> mne.io.BaseRaw:
        generator = np.random.default_rng(1)
        rate, n = 500.0, round((self.seconds + 4) * 500)
        data = generator.standard_normal((6, n))
        begin = round((2 + self.delay) * rate)
        copied = self.sound[::32][: n - begin]
        data[4] = 3.0 + 0.001 * data[4]
        data[4, begin : begin + len(copied)] += copied
        data[5] = 5.0 * (np.arange(n) % 500 < 10)  # a trigger
        info = mne.create_info(["a", "b", "c", "m1", "m2", "m3"], rate, ["eeg"] * 3 + ["misc"] * 3)
        return mne.io.RawArray(data, info, verbose="error")

    def load_events(self) -> pd.DataFrame:
        sound = {"kind": "sound", "start": 2.0, "duration": self.seconds, "offset": 0.0}
        rows: list[dict[str, Any]] = [{**sound, "filepath": str(self.file)}]
        for start in np.arange(3.0, 60.0, 0.4) if self.has_words else ():
            rows.append({"kind": "word", "start": start, "duration": 0.3, "word": "a"})
        return pd.DataFrame(rows)

    def source_files(self) -> Sequence[Path]:
        return [self.file]


# Recordings


def test_simulated_recording_is_aligned(make: Make) -> None:
    row = table_row(check_alignment(make()))
    assert (row["verdict"], row["reason"], row["stimulus"]) == (OK, "", "sound")
    assert 50 <= row["peak_ms"] <= 150
    assert row["p"] < 1e-10
    assert row["over_chance"] > 5
    assert abs(row["word_to_sound_ms"]) <= 100


@pytest.mark.parametrize(("shift", "direction"), [(-0.3, "early"), (0.3, "late")])
@pytest.mark.parametrize("snr", [0.1, 0.4])
def test_planted_shift_of_300_ms_is_found(
    make: Make, shift: float, direction: str, snr: float
) -> None:
    fine, shifted = (check_alignment(make(by, snr=snr)) for by in (0.0, shift))
    assert (fine.verdict, shifted.verdict) == (OK, MISALIGNED)
    assert shifted.judged.peak == pytest.approx(fine.judged.peak - shift, abs=0.02)
    (reason,) = shifted.faults
    assert direction in reason
    said = float(reason.split("some ")[1].split(" ms")[0])
    assert said == pytest.approx(300, abs=80)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_without_a_response_nothing_is_said_of_its_place(make: Make, shift: float) -> None:
    alignment = check_alignment(make(shift, snr=0.0))
    assert (alignment.verdict, alignment.faults) == (NOTHING_FOUND, [])
    assert alignment.judged.p > 0.001


def test_words_that_leave_their_sound_are_found(make: Make) -> None:
    alignment = check_alignment(make(0.5, kinds=("word",)))
    assert alignment.verdict == MISALIGNED
    assert "words are heard 4" in alignment.faults[0]  # 490 ms or so
    assert "before their events" in alignment.faults[0]
    assert alignment.judged.peak < 0.2  # the sound is where it was


def test_words_take_the_place_of_sounds_that_are_not_there(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine, early = make(snr=0.4), make(-0.3, snr=0.4)
    for recording in (fine, early):
        table = recording.events()
        table.loc[table["kind"] == "sound", "filepath"] = "/nowhere/sound.wav"
        monkeypatch.setattr(recording, "events", lambda table=table: table)
    rows = [table_row(check_alignment(recording)) for recording in (fine, early)]
    assert [row["stimulus"] for row in rows] == ["words", "words"]
    assert [row["verdict"] for row in rows] == [OK, MISALIGNED]
    assert rows[0]["word_to_sound_ms"] is None


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.2])
def test_recorded_copy_of_the_sound_is_found_with_its_delay(tmp_path: Path, delay: float) -> None:
    alignment = check_alignment(Recorded(tmp_path, delay, has_words=False), 100.0)
    row = table_row(alignment)
    assert row["sound_channel"] == "m2"
    assert row["sound_channel_ms"] == pytest.approx(1000 * delay, abs=5)
    assert (alignment.verdict == MISALIGNED) is (delay > 0.1)
    assert ("channel m2 has the sound 200 ms after" in row["reason"]) is (delay > 0.1)


def test_words_of_another_sound_are_found(tmp_path: Path) -> None:
    alignment = check_alignment(Recorded(tmp_path, 0.0))
    assert alignment.faults == ["words and sound have nothing to do with each other"]


def test_recording_that_cannot_be_judged_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"recorded/r0.0: .* s are too short"):
        check_alignment(Recorded(tmp_path, 0.0, seconds=20.0))
    mute = Recorded(tmp_path, 0.0, has_words=False)
    mute.events()
    mute.file.rename(tmp_path / "elsewhere.wav")
    with pytest.raises(DataError, match="sound.wav is missing"):
        check_alignment(mute)


@pytest.mark.parametrize(
    ("options", "message"), [({"sample_rate": 30.0}, "40 or more"), ({"reach": 0.1}, "0.5 to 60")]
)
def test_impossible_options_are_refused(
    make: Make, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_alignment(make(), **options)


def test_study_as_a_whole_is_judged_too(make: Make) -> None:
    late = [check_alignment(make(0.3, snr=0.1)), check_alignment(make(0.3, snr=0.1, seed=1))]
    row = pool_row(late)
    assert (row["recording"], row["verdict"]) == ("(all)", MISALIGNED)
    assert -250 <= row["peak_ms"] <= -150


# Script


class Shifted(Study):
    """Simulated recordings, of which the first has wrong events and the last is broken."""

    name = "shifted"

    def __init__(self, first: float = 0.0, broken: bool = False, *, cache: Cache):
        super().__init__(cache=cache)
        self.first, self.broken = first, broken

    def recordings(self) -> Iterator[Recording]:
        study = Fake(n_minutes=2.0, snr=0.2, cache=self.cache)
        for subject in range(2):
            recording = ShiftedRecording(self.name, study.experiment, subject, 0, True)
            recording.shift = self.first if subject == 0 else 0.0
            yield recording
        if self.broken:
            yield Recorded(self.cache.folder, 0.0, seconds=5.0)


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setitem(registry, "shifted", Shifted)

    def start(selection: str, *more: str) -> int:
        arguments = [f"+selections.shifted={{study: shifted{selection}}}", f"cache={folder}"]
        return script.main(["selections=[shifted]", *arguments, f"out={tmp_path}", *more])

    return start


def test_script_flags_the_planted_shift_and_passes_the_rest(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(", first: -0.3, broken: true") == 1
    table = pd.read_csv(tmp_path / "alignment.csv", keep_default_na=False)
    assert table["recording"].tolist()[-1] == "(all)"
    assert table["verdict"].tolist()[:3] == [MISALIGNED, OK, "FAILED"]
    assert "too short" in table["reason"][2]
    printed = capsys.readouterr().out
    assert "1 MISALIGNED, 1 ok, 1 FAILED" in printed
    assert "ms too early" in printed
    images = sorted(path.name for path in tmp_path.glob("*.png"))
    assert images == [f"shifted-simulated-0{n}-session-1.png" for n in (1, 2)]


def test_script_is_content_with_aligned_recordings(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("", "sample_rate=100", "dset.n_recordings=1") == 0
    assert "1 ok" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "alignment.csv")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["selection=[fake]"], "Did you mean 'selections'"),
        (["selections=[fake]", "rach=2"], "Did you mean 'reach'"),
        (["selections=[fakee]"], "Did you mean 'fake'"),
        (["selections=[fake]", "dset.n_recording=1"], "Did you mean 'dset.n_recordings'"),
        (["selections=[fake]", "reach=far"], "reach=far should be a number"),
        (["selections=[fake]", "reach=0"], "choose 0.5 to 60"),
        (["selections=[fake]", "reach=1", "reach=2"], "given twice"),
        (["selections=[fake]", "out="], "needs a value"),
        (["out=somewhere"], "Say which recordings"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([*arguments, f"cache={tmp_path}"]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "--help" in printed


def test_missing_study_is_no_fault_of_the_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["selections=[bids]", f"selections.bids.root={tmp_path}/none", f"cache={tmp_path}"]
    assert script.main(arguments) == 1
    assert "none" in capsys.readouterr().err


def test_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--help"]) == 0
    assert script.main([]) == 2
    assert capsys.readouterr().out.count("selections=[synthetic]") == 2


def test_options_and_overrides_are_told_apart() -> None:
    options, overrides = read_options(
        script.Options, ["selections=[a, b]", "selections.a.root=x", "preset=demo", "reach=2"]
    )
    assert options == script.Options(["a", "b"], reach=2.0)
    assert overrides == ["selections.a.root=x", "preset=demo"]
    with pytest.raises(UsageError, match="whole number|number"):
        read_options(script.Options, ["selections=[a]", "sample_rate=fast"])
