"""What is fed to bm's readers of other people's files, and which errors may come out.

A target is a function of bytes. It may raise `ValueError` (of which `DataError` is one), which is
how bm says that a file is broken; whatever else comes out, or takes long, is a finding.
"""

import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import torch

from bm.checkpoint import read_checkpoint
from bm.config import from_hydra
from bm.core.messages import DataError
from bm.events import validate_events
from bm.published.reader import read_published
from bm.recordings.sound import read_sound, sound_duration
from bm.studies.bids import read_announced_duration
from bm.studies.bids_events import EventReader
from bm.studies.downloads.manifest import Manifest
from bm.studies.downloads.unpack import Archive, unpack
from bm.studies.formats.gentle import places_fit, read_alignment
from bm.studies.formats.kit import check_con
from bm.studies.formats.presentation import read_log
from bm.studies.formats.textgrid import read_textgrid
from bm.studies.formats.tsv import numbers_of, read_tsv
from bm.studies.gwilliams2022 import _read_table
from bm.train import main

TEXTGRID = b'''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 1.25
            text = "the"
        intervals [2]:
            xmin = 1.25
            xmax = 2.5
            text = "say ""no"""
'''
GENTLE = b"""{"transcript": "The cat", "words": [
 {"case": "success", "word": "The", "start": 0.1, "end": 0.3, "startOffset": 0, "endOffset": 3,
  "phones": [{"phone": "dh_B", "duration": 0.1}, {"phone": "ah_E", "duration": 0.1}]},
 {"case": "not-found-in-audio", "word": "cat", "startOffset": 4, "endOffset": 7}]}"""
LOG = (
    b"Scenario - story\r\nLogfile written - 01/01/2012 10:00:00\r\n\r\n"
    b"Subject\tTrial\tEvent Type\tCode\tTime\tTTime\tUncertainty\tDuration\tUncertainty\r\n\r\n"
    b"A1\t1\tPulse\t30\t10000\t0\t1\t\t\r\nA1\t2\tSound\tstory 1\t20000\t0\t1\t15000\t2\r\n"
    b"A1\t3\tPicture\tend.\t50000\t0\t1\t9000\t2\r\n\r\n"
    b"Event Type\tCode\tType\tResponse\tRT\r\n"
)
EVENTS = (
    b"onset\tduration\ttrial_type\tstim_file\tword\tsentence\tphoneme\n"
    b"1.0\t0.9\tsound\tstory.wav\tn/a\t1\tn/a\n1.2\t0.3\tword\tn/a\tthe\t1\tn/a\n"
    b'1.5\t0.3\tword\tn/a\t"cat """\t1\tn/a\n2.5\t0.2\tphoneme\tn/a\tn/a\t2\tAH0\n'
)
DICTS = (
    b"onset\tduration\ttrial_type\n"
    b"1.0\t2\t{'story': 'cable', 'kind': 'sound', 'sound': 'stimuli/audio/cable_0.0.wav', "
    b"'start': 0.0}\n"
    b"1.2\t0.3\t{'kind': 'word', 'word': 'the', 'sound': 'a.wav', 'start': 0.2, "
    b"'sequence_id': 1.0, 'word_index': 0, 'condition': 'sentence'}\n"
    b"1.2\t0.1\t{'kind': 'phoneme', 'phoneme': 'dh_B', 'sound': 'a.wav', "
    b"'sequence_id': 1.0, 'condition': 'sentence'}\n"
)
TABLE = (
    b"kind\tstart\tduration\tword\toffset\tfilepath\n"
    b"sound\t0\t3\tn/a\t0\ta.wav\nword\t0.5\t.2\tthe\tn/a\tn/a\n"
)
SIDECAR = b'{"TaskName": "listen", "RecordingDuration": 12.5, "PowerLineFrequency": 50}'
OVERRIDES = (
    b"optim.lr=1e-3\ndset.tmin=-0.5\n+selections.fake.n_minutes=4\ndset.features=[MelSpectrum]\n"
    b"dset.features_params.MelSpectrum.n_mels=8\npreset=compact\ndset.bandpass=[0.1,40]\n"
)
MANIFEST = (
    b'{"sources": {"osf": {"patterns": ["*"], "files": [{"path": "a/b.wav", "url": "http://x/1", '
    b'"size": 3, "hashes": {"md5": "00"}}]}}, "unpacked": {"z.zip": {"size": 9, "files": []}}}'
)
TOKENS = [
    b"",
    b"\x00",
    b"\t",
    b"\n",
    b"\r\n",
    b'"',
    b"'",
    b'""',
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b":",
    b",",
    b"=",
    b"-",
    b"-1",
    b"0",
    b"1e999",
    b"-1e308",
    b"nan",
    b"NaN",
    b"inf",
    b"Infinity",
    b"None",
    b"n/a",
    b"null",
    b"true",
    b"9" * 400,
    b"9" * 5000,
    b"[" * 3000,
    b"(" * 3000,
    b"-" * 3000,
    b"{'a':" * 500,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xe9",
    b"\xed\xa0\x80",
    "\u2028é\U0001f600".encode(),
    b"\\u0000",
    b"\\ud800",
    b"..",
    b"../../x",
    b"/",
    b"\\",
    b"${oc.env:HOME}",
    b"${optim.lr}",
    b"<script>",
    b"__import__('os')",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"1_0",
    b"0x10",
    b"1j",
    b"+",
    b"~",
    b"*",
    b"?",
]


@dataclass(frozen=True)
class Target:
    """Something that reads.

    Attributes
    ----------
    read : given bytes in a file, in a folder of its own.
    seeds : whole files, to be changed.
    name : of the file.
    """

    read: Callable[[Path], object]
    seeds: list[bytes]
    name: str = "file"

    def __call__(self, content: bytes, folder: Path) -> bool:
        """Read bytes; whether they could be read. What may not come out is raised."""
        path = folder / self.name
        path.write_bytes(content)
        try:
            self.read(path)
        except ValueError:
            return False
        return True


def change(content: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """Content with one to eight changes: bits, bytes, stretches, tokens, parts of another file."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        begin = chance.randrange(len(data) + 1)
        end = min(len(data), begin + int(chance.expovariate(1 / 6)))
        kind = chance.randrange(7)
        if kind == 0 and begin < len(data):
            data[begin] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[begin:end]
        elif kind in (2, 3):
            data[begin : end if kind == 3 else begin] = chance.choice(TOKENS)
        elif kind == 4:
            data[begin:begin] = data[begin:end] * chance.randrange(1, 20)
        elif kind == 5:
            other = chance.choice(others)
            place = chance.randrange(len(other) + 1)
            data[begin:end] = other[place : place + int(chance.expovariate(1 / 30))]
        elif chance.random() < 0.2:
            del data[begin:]
    return bytes(data)


def read_every_column(path: Path) -> None:
    table = read_tsv(path)
    for column in table:
        try:
            numbers_of(table, column, path, minimum=0, required=True)
        except DataError:
            continue


def read_bids_events(path: Path) -> None:
    sound = path.with_name("story.wav")
    if not sound.exists():
        soundfile.write(sound, np.zeros(8000), 8000)
    validate_events(EventReader(path.parent, path.parent).read(path), 10.0, "fuzz")


def read_event_table(path: Path) -> None:
    table = read_tsv(path)
    validate_events(table.infer_objects(), 5.0, "fuzz")


def read_gentle(path: Path) -> None:
    places_fit(read_alignment(path))


def read_overrides(path: Path) -> None:
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    from_hydra(main.get_xp([line for line in lines if line]).cfg)


def read_audio(path: Path) -> None:
    read_sound(path, 0.0, min(sound_duration(path), 1.0))


def read_archive(path: Path) -> None:
    out = path.parent / "unpacked"
    out.mkdir(exist_ok=True)
    unpack(path, out, Archive("*.zip"))
    assert {one.name for one in path.parent.iterdir()} <= {path.name, "unpacked"}, "it led out"


def read_manifest(path: Path) -> None:
    folder = path.parent / ".download"
    folder.mkdir(exist_ok=True)
    path.replace(folder / "manifest.json")
    Manifest(path.parent).files("osf", ["*"])


def _sounds() -> list[bytes]:
    noise = 0.1 * np.random.default_rng(0).standard_normal(2000)
    found = []
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        file = BytesIO()
        soundfile.write(file, noise, 16_000, format=kind)
        found.append(file.getvalue())
    return found


def _kit() -> bytes:
    """A table of sections, then 100 samples of two channels of two bytes."""
    table = np.array([(400, 16, 1, 0)] * 9 + [(700, 2, 1, 0)], dtype="<i4").tobytes()
    acquisition = struct.pack("<idii", 1, 1000.0, 0, 100)
    n_channels = struct.pack("<i", 2)
    start = table.ljust(400, b"\0") + acquisition
    return (start.ljust(668, b"\0") + n_channels).ljust(1100, b"\0")


def _checkpoint() -> bytes:
    file = BytesIO()
    weights = {"a.weight": torch.ones(3, 4), "b": torch.zeros(2, dtype=torch.long)}
    torch.save({"format": 1, "history": [{"train": {"loss": 1.0}}], "models": weights}, file)
    return file.getvalue()


def _archive() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("study/a.txt", b"abc" * 50)
        archive.writestr("study/b/c.txt", b"")
    return file.getvalue()


TARGETS: dict[str, Target] = {
    "tables": Target(read_every_column, [EVENTS, TABLE]),
    "event tables": Target(read_event_table, [TABLE]),
    "BIDS events": Target(read_bids_events, [EVENTS], "sub-1_events.tsv"),
    "BIDS sidecars": Target(read_announced_duration, [SIDECAR], "sub-1_meg.json"),
    "dict literals": Target(_read_table, [DICTS]),
    "TextGrid": Target(read_textgrid, [TEXTGRID, TEXTGRID.decode().encode("utf-16")]),
    "Presentation logs": Target(read_log, [LOG]),
    "Gentle JSON": Target(read_gentle, [GENTLE]),
    "KIT headers": Target(check_con, [_kit()]),
    "sound files": Target(read_audio, _sounds(), "sound.wav"),
    "MP3 files": Target(read_audio, _sounds()[-1:], "sound.mp3"),
    "archives": Target(read_archive, [_archive()], "a.zip"),
    "manifests of downloads": Target(read_manifest, [MANIFEST]),
    "checkpoints": Target(read_checkpoint, [_checkpoint()]),
    "published checkpoints": Target(read_published, [_checkpoint()]),
    "configuration": Target(read_overrides, [OVERRIDES]),
}
