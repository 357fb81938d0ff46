"""CTF recordings: folders `NAME.ds` with `NAME.res4` (header) and `NAME.meg4` (samples).

Enters: such a folder. Leaves: an MNE raw whose data channels are the MEG sensors, and the values of
single channels. Beyond 2 GB samples go on in `NAME.1_meg4`, `NAME.2_meg4` ...; MNE takes the end of
the first file that is missing or cut for the end of the recording, so all of them are checked here.
"""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np

from bm.core.messages import DataError, did_you_mean

HEADER_MAGIC = b"MEG4"
SAMPLES_MAGIC_BYTES = 8
COUNTS_AT, RATE_AT, TRIALS_AT, RUN_LENGTH_AT, RUN_AT = 1288, 1296, 1312, 1836, 1844
FILTER_BYTES, PARAMETER_BYTES = 18, 8
NAME_BYTES, CHANNEL_BYTES, COMPENSATION_BYTES = 32, 1328, 1992
PARTS = re.compile(r"\.(?:(\d+)_)?meg4$")
AGAIN = "Download or copy it again."


@dataclass(frozen=True)
class Header:
    """What `NAME.res4` says.

    Attributes
    ----------
    names : of all channels, in the order of the file.
    sample_rate : Hz.
    trial_samples, n_trials : pieces that a recording is stored in, usually of 10 s.
    n_compensations : records of how references correct the sensors.
    """

    names: list[str]
    sample_rate: float
    trial_samples: int
    n_trials: int
    n_compensations: int


def read_ds(folder: Path) -> "mne.io.BaseRaw":
    """Open a recording; names lose the number of the helmet ("MLC11-4304" is "MLC11").

    The electrodes that a CTF records beside its sensors (eyes, heart) become channels of type
    "misc": the data channels are MEG sensors, whatever else was plugged in.

    Raises
    ------
    DataError : a file is missing, truncated, no CTF recording, or named otherwise than its folder.
    """
    header = read_header(folder)
    if not header.n_compensations:
        raise DataError(
            f"{_inside(folder, '.res4')} has no compensation records, without which MNE reads no "
            "CTF recording. Was it written by another program than CTF's?"
        )
    raw = mne.io.read_raw_ctf(folder, clean_names=True, verbose="error")
    electrodes = [raw.ch_names[index] for index in mne.pick_types(raw.info, eeg=True, exclude=[])]
    raw.set_channel_types(dict.fromkeys(electrodes, "misc"), on_unit_change="ignore")
    return raw


def read_header(folder: Path) -> Header:
    """Read the header, and make sure that all samples that it announces are there.

    Raises
    ------
    DataError : see `read_ds`.
    """
    header = _parse_header(_inside(folder, ".res4"))
    _check_samples(folder, header)
    return header


def read_channel(folder: Path, name: str) -> np.ndarray:
    """[T] stored numbers of one channel, such as a trigger line, without reading the others.

    Parameters
    ----------
    folder : the recording.
    name : of the channel, with or without the number of the helmet.

    Raises
    ------
    DataError : there is no such channel, or see `read_ds`.
    """
    header = read_header(folder)
    plain = [each.split("-")[0] for each in header.names]
    if name not in plain:
        raise DataError(f"{folder}: no channel {name!r}. {did_you_mean(name, plain)}")
    index = plain.index(name)
    trial_bytes = _trial_bytes(header)
    parts = []
    for file in sample_files(folder):
        n_trials = (file.stat().st_size - SAMPLES_MAGIC_BYTES) // trial_bytes
        shape = (n_trials, len(header.names), header.trial_samples)
        numbers = np.memmap(file, ">i4", "r", offset=SAMPLES_MAGIC_BYTES, shape=shape)
        parts.append(np.array(numbers[:, index]).ravel().astype(np.int64))
    return np.concatenate(parts)


def sample_files(folder: Path) -> list[Path]:
    """The `.meg4` file and its continuations.

    Raises
    ------
    DataError : one is missing.
    """
    first = _inside(folder, ".meg4")
    stem = first.name.removesuffix(".meg4")
    found = {}
    for file in folder.iterdir():
        match = PARTS.search(file.name)
        if match and file.name.removesuffix(match[0]) == stem:
            found[int(match[1] or 0)] = file
    for number in range(len(found)):
        if number not in found:
            raise DataError(
                f"{folder / f'{stem}.{number}_meg4'} is missing, though {found[max(found)].name} "
                "is there. Download or copy it."
            )
    return [found[number] for number in sorted(found)]


def _inside(folder: Path, ending: str) -> Path:
    """File of the recording with that ending; its name is that of the folder."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: a CTF recording is a folder of several files.")
    path = folder / (folder.name.removesuffix(".ds") + ending)
    if path.is_file():
        return path
    others = sorted(file.name for file in folder.glob(f"*{ending}"))
    if others:
        raise DataError(
            f"{path} is missing, but there is {others[0]}: the files in a CTF recording carry the "
            "name of its folder. Give the folder and them the same name."
        )
    raise DataError(f"{path} is missing. Download or copy the whole folder {folder.name}.")


def _parse_header(path: Path) -> Header:
    content = path.read_bytes()
    if not content.startswith(HEADER_MAGIC):
        text = ", but text such as the page of a failed download" if content[:1] == b"<" else ""
        raise DataError(f"{path} is no header of a CTF recording{text}. {AGAIN}")
    try:
        trial_samples, n_channels = struct.unpack_from(">ih", content, COUNTS_AT)
        (sample_rate,) = struct.unpack_from(">d", content, RATE_AT)
        (n_trials,) = struct.unpack_from(">h", content, TRIALS_AT)
        (run_length,) = struct.unpack_from(">i", content, RUN_LENGTH_AT)
        position = RUN_AT + run_length
        (n_filters,) = struct.unpack_from(">h", content, position)
        position += 2
        for _ in range(n_filters):
            (n_parameters,) = struct.unpack_from(">h", content, position + FILTER_BYTES - 2)
            position += FILTER_BYTES + PARAMETER_BYTES * n_parameters
        names = [
            content[position + NAME_BYTES * index :][:NAME_BYTES].split(b"\0")[0].decode("latin-1")
            for index in range(n_channels)
        ]
        position += (NAME_BYTES + CHANNEL_BYTES) * n_channels
        (n_compensations,) = struct.unpack_from(">h", content, position)
    except struct.error as error:
        raise DataError(f"{path} is truncated: {len(content)} bytes. {AGAIN}") from error
    missing = position + 2 + COMPENSATION_BYTES * n_compensations - len(content)
    if missing > 0:
        raise DataError(f"{path} is truncated: {missing} bytes are missing. {AGAIN}")
    if trial_samples < 1 or n_channels < 1 or sample_rate <= 0:
        raise DataError(
            f"{path}: {n_channels} channels, {trial_samples} samples a trial at {sample_rate} Hz "
            f"make no recording. {AGAIN}"
        )
    return Header(names, sample_rate, trial_samples, n_trials, n_compensations)


def _check_samples(folder: Path, header: Header) -> None:
    trial_bytes = _trial_bytes(header)
    n_trials = 0
    files = sample_files(folder)
    for file in files:
        size = file.stat().st_size - SAMPLES_MAGIC_BYTES
        missing = -size % trial_bytes if size > 0 else trial_bytes
        if missing:
            raise DataError(
                f"{file} is truncated: {missing} of {trial_bytes} bytes of its last trial are "
                f"missing. {AGAIN}"
            )
        n_trials += size // trial_bytes
    if n_trials < header.n_trials:
        raise DataError(
            f"{files[-1]} holds, with the files before it, {n_trials} of the {header.n_trials} "
            f"trials that the header announces: it is truncated, or its continuation "
            f"{folder.name.removesuffix('.ds')}.{len(files)}_meg4 is missing. Download or copy it."
        )


def _trial_bytes(header: Header) -> int:
    return 4 * len(header.names) * header.trial_samples
