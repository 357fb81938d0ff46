"""Find the same stretch of sound in two places, whatever the files are called and however stored.

Enters: sound files. Leaves: for each, short patches of its spectrum around loud moments, by which
the same sound is known again after another cut, gain, sampling rate or lossy encoding. The idea is
that of landmarks (Wang 2003, An industrial-strength audio search algorithm, ISMIR); patches are
compared by correlation instead of by hash, so that small differences do no harm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy  # its parts are imported when they are used: filters take long
import torch

from bm.core.cache import Cache
from bm.recordings.sound import SAMPLE_RATE, read_sound, sound_digest, sound_duration

VERSION = 1
PIECE = 60.0
"""Seconds read at once."""
HOP, FRAME = 160, 512
FRAME_RATE = SAMPLE_RATE / HOP
N_BANDS, LOWEST, HIGHEST = 16, 100.0, 7000.0
SPACING, NEIGHBOURS = 12, 25
"""Frames to either side of a landmark than which it is louder, and which are compared."""
ALIKE = 0.9
"""Correlation of two patches from which they count as the same sound."""
STEP = 0.03
"""Seconds by which matches of one shared stretch may differ in their shift."""
MIN_MATCHES, MIN_SPAN = 4, 2.5
"""Landmarks and seconds that a shared stretch needs: words are repeated in any language, and by a
machine exactly, but not this long."""
MAX_GAP = 3.0
"""Seconds between two matches of one stretch."""
MIN_SHARE = 0.5
"""Share of the landmarks in between that must match, too: a synthetic voice has few sounds, and
some of them recur at equal distances by chance."""
CHUNK = 1024


@dataclass(frozen=True)
class Landmarks:
    """Loud moments of a sound file.

    Attributes
    ----------
    times : [n] seconds in the file.
    patches : [n, D] spectrum around them, each with mean 0 and norm 1.
    """

    times: np.ndarray
    patches: np.ndarray


@dataclass(frozen=True)
class SharedSound:
    """A stretch of sound that was found in two places.

    Attributes
    ----------
    first, second : indices of the two groups' landmarks where it begins.
    span : seconds between the first and the last landmark that match.
    """

    first: int
    second: int
    span: float


def landmarks(path: Path, cache: Cache | None = None) -> Landmarks:
    """Landmarks of a sound file, from the cache if there is one."""
    if cache is None:
        return _find_landmarks(path)

    def build(folder: Path) -> None:
        found = _find_landmarks(path)
        np.savez(folder / "landmarks.npz", times=found.times, patches=found.patches)

    key = {"sound": sound_digest(path), "version": VERSION}
    with np.load(cache.entry("landmarks", key, build, path.stem) / "landmarks.npz") as file:
        return Landmarks(file["times"], file["patches"])


def shared_sounds(
    first: Landmarks, second: Landmarks, first_file: np.ndarray, second_file: np.ndarray
) -> list[SharedSound]:
    """Stretches of the first group of landmarks that are heard in the second one too.

    Parameters
    ----------
    first, second : landmarks of one or more files each.
    first_file, second_file : [n] number of the file that each landmark belongs to. A file shared by
        both groups has the same number in both; that a moment of it equals itself isn't told.
    """
    rows, columns = _alike(first.patches, second.patches)
    shift = second.times[columns] - first.times[rows]
    same_file = first_file[rows] == second_file[columns]
    other = ~same_file | (np.abs(shift) > STEP)
    rows, columns, shift = rows[other], columns[other], shift[other]
    order = np.lexsort((first.times[rows], shift, second_file[columns], first_file[rows]))
    rows, columns, shift = rows[order], columns[order], shift[order]
    files = np.stack([first_file[rows], second_file[columns]])
    breaks = (np.diff(files) != 0).any(axis=0) | (np.diff(shift) > STEP)
    found = []
    for shifted in np.split(np.arange(len(rows)), np.flatnonzero(breaks) + 1):
        by_time = shifted[np.argsort(first.times[rows[shifted]], kind="stable")]
        gaps = np.diff(first.times[rows[by_time]]) > MAX_GAP
        for run in np.split(by_time, np.flatnonzero(gaps) + 1):
            if len(run) and _is_shared(run, first, first_file, rows):
                times = first.times[rows[run]]
                begin, span = run[0], float(times[-1] - times[0])
                found.append(SharedSound(int(rows[begin]), int(columns[begin]), span))
    return found


def _is_shared(run: np.ndarray, first: Landmarks, first_file: np.ndarray, rows: np.ndarray) -> bool:
    """Whether matches in order of time are enough, long enough, and most of what is there."""
    begin, end = first.times[rows[run[0]]], first.times[rows[run[-1]]]
    n_matches = len(np.unique(rows[run]))
    if n_matches < MIN_MATCHES or end - begin < MIN_SPAN:
        return False
    in_file = first_file == first_file[rows[run[0]]]
    n_there = int((in_file & (first.times >= begin) & (first.times <= end)).sum())
    return n_matches >= MIN_SHARE * n_there


def join(parts: Sequence[Landmarks]) -> Landmarks:
    """Landmarks of several files, one after the other."""
    return Landmarks(
        np.concatenate([part.times for part in parts]),
        np.concatenate([part.patches for part in parts]),
    )


def _find_landmarks(path: Path) -> Landmarks:
    duration = sound_duration(path)
    parts = []
    for number in range(math.ceil(duration / PIECE)):
        begin = number * PIECE
        sound = read_sound(path, begin, min(PIECE, duration - begin))
        if len(sound) > FRAME:
            found = _landmarks_of(sound)
            parts.append(Landmarks(found.times + begin, found.patches))
    empty = Landmarks(np.empty(0), np.empty((0, NEIGHBOURS * N_BANDS), np.float32))
    return join([empty, *parts])


def _landmarks_of(sound: torch.Tensor) -> Landmarks:
    window = torch.hann_window(FRAME)
    spectrum = torch.stft(sound, FRAME, HOP, window=window, return_complex=True).abs().square()
    edges = np.geomspace(LOWEST, HIGHEST, N_BANDS + 1) * FRAME / SAMPLE_RATE
    bands = np.stack(
        [
            spectrum[math.floor(low) : math.ceil(high) + 1].sum(dim=0).numpy()
            for low, high in zip(edges[:-1], edges[1:], strict=True)
        ],
        axis=1,
    )  # [frames, bands]
    level = bands.sum(axis=1)
    is_peak = (level == scipy.ndimage.maximum_filter1d(level, 2 * SPACING + 1)) & (level > 0)
    is_peak[:NEIGHBOURS] = is_peak[len(level) - NEIGHBOURS :] = False
    peaks = np.flatnonzero(is_peak)
    logs = np.log(bands + max(1e-6 * level.max(), np.finfo(np.float32).tiny))
    around = logs[peaks[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS)]  # [n, frames, bands]
    around = around.reshape(len(peaks), NEIGHBOURS, 2, N_BANDS).mean(axis=2)
    around -= around.mean(axis=2, keepdims=True)  # loudness over time: all syllables have that
    around -= around.mean(axis=1, keepdims=True)  # and the mean spectrum: so does one voice
    patches = around.reshape(len(peaks), NEIGHBOURS * N_BANDS)
    norms = np.linalg.norm(patches, axis=1)
    kept = norms > 0
    return Landmarks(
        peaks[kept] / FRAME_RATE, (patches[kept] / norms[kept, None]).astype(np.float32)
    )


def _alike(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows whose correlation is at least `ALIKE`."""
    rows, columns = [np.empty(0, int)], [np.empty(0, int)]
    for begin in range(0, len(first), CHUNK):
        row, column = np.nonzero(first[begin : begin + CHUNK] @ second.T >= ALIKE)
        rows.append(row + begin)
        columns.append(column)
    return np.concatenate(rows), np.concatenate(columns)
