"""From the clock of a log to that of a recording, by the triggers that both know.

Enters: when a log says that it sent which code, and when the recording received which. Leaves: a
`Clock`. No trigger has to be there: the shift (and drift) between the clocks that explains most of
them is searched for, and a log that explains too few is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BIN = 0.025
"""Seconds: how finely shifts are told apart in the search."""
MAX_DRIFT = 3e-4
"""Largest difference in speed of the two clocks, as a share."""
TOLERANCE = 0.02
"""Seconds between a trigger and its line in the log, once the clocks agree."""
MIN_FOUND, MIN_SHARE, MIN_OF_ALL = 3, 0.5, 0.1
"""Triggers that must be found: this many, this share of those that fall into the recording, and
this share of all that the log or the recording has (what has fewer counts)."""


@dataclass(frozen=True)
class Triggers:
    """Codes and their times in seconds, in time order."""

    times: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.times)

    def keep(self, chosen: np.ndarray) -> "Triggers":
        """Those that are `chosen` [n]."""
        return Triggers(self.times[chosen], self.codes[chosen])


@dataclass(frozen=True)
class Clock:
    """What time it is in the recording when the log says it is so late.

    Attributes
    ----------
    log, recording : [n] seconds at which a trigger was found in both.
    speed : seconds of the recording in one of the log.
    used : index in the recording's triggers of each that was found.
    n_expected : how many the log has while the recording ran.
    """

    log: np.ndarray
    recording: np.ndarray
    speed: float
    used: np.ndarray
    n_expected: int

    def seconds(self, times: np.ndarray) -> np.ndarray:
        """Times of the log in seconds of the recording; exact where there is a trigger."""
        first, last = self.log[0], self.log[-1]
        inside = np.interp(times, self.log, self.recording)
        outside = np.minimum(times - first, 0) + np.maximum(times - last, 0)
        return inside + self.speed * outside


def received(line: np.ndarray, sample_rate: float) -> Triggers:
    """Codes that a trigger line [T] received.

    Pulses can be so long that the next begins before they end: their bits add up. Or the line stays
    at a code until the next. Both readings of each change are given.
    """
    line = line.astype(np.int64)
    before = np.concatenate([[0], line[:-1]])
    changes = np.flatnonzero((line != before) & (line > 0))
    risen = line[changes] & ~before[changes]
    also = changes[(risen > 0) & (risen != line[changes])]
    samples = np.concatenate([changes, also])
    codes = np.concatenate([line[changes], line[also] & ~before[also]])
    order = np.argsort(samples, kind="stable")
    return Triggers(samples[order] / sample_rate, codes[order])


def align(log: Triggers, recording: Triggers, duration: float) -> Clock | None:
    """Find the clock that explains most triggers; None if it explains too few.

    Parameters
    ----------
    log, recording : triggers sent and received, each in seconds of its own clock.
    duration : of the recording, in seconds.
    """
    if not len(log) or not len(recording):
        return None
    shift, drift = _search(log, recording)
    middle = _middle(log)
    speed, start = 1 + drift, shift - drift * middle
    for tolerance in (3 * BIN, TOLERANCE):
        sent, found = _pairs(log, recording, log.times * speed + start, tolerance)
        if len(sent) < MIN_FOUND:
            return None
        speed, start = _line(log.times[sent], recording.times[found], speed)
    expected = log.times * speed + start
    sent, found = _pairs(log, recording, expected, TOLERANCE)
    n_expected = int(((expected >= 0) & (expected < duration)).sum())
    n_needed = max(MIN_FOUND, MIN_SHARE * n_expected, MIN_OF_ALL * min(len(log), len(recording)))
    if len(sent) < n_needed:
        return None
    return Clock(log.times[sent], recording.times[found], speed, found, n_expected)


def align_in_order(
    log_times: np.ndarray,
    is_anchor: np.ndarray,
    is_fixation: np.ndarray,
    times: np.ndarray,
    are_fixations: np.ndarray,
) -> np.ndarray:
    """Seconds of each line of a log, by counting off anchors, as published.

    Anchors are contexts and fixations; those of the log and those of the recording are matched by
    their order alone. A line has the time of the anchor before it plus what passed in the log since
    then, so one anchor that is missing can put others off.

    Parameters
    ----------
    log_times : [n] seconds of the log's clock.
    is_anchor, is_fixation : [n] what each line of the log is.
    times, are_fixations : [m] anchors in the recording.
    """
    lines = np.flatnonzero(is_anchor)
    matched = _matched_in_order(is_fixation[lines].tolist(), are_fixations.tolist())
    seconds = np.full(len(log_times), np.nan)
    before, at = lines[0], times[0]
    begin = 0
    for index, anchor in matched:
        line = lines[index]
        seconds[begin:line] = log_times[begin:line] - log_times[before] + at
        before, at, begin = line, times[anchor], line + 1
        seconds[line] = at
    seconds[begin:] = log_times[begin:] - log_times[before] + at
    return seconds


def _search(log: Triggers, recording: Triggers) -> tuple[float, float]:
    """Shift in the middle of the log, and drift, that bring most triggers together."""
    delays, when = [], []
    for code in np.unique(log.codes):
        sent = log.times[log.codes == code]
        found = recording.times[recording.codes == code]
        delays.append((found[:, None] - sent).ravel())
        when.append(np.broadcast_to(sent, (len(found), len(sent))).ravel())
    delay, passed = np.concatenate(delays), np.concatenate(when) - _middle(log)
    if not len(delay):
        return 0.0, 0.0
    n_steps = int(MAX_DRIFT * np.ptp(log.times) / BIN)
    drifts = (
        sorted(np.linspace(-MAX_DRIFT, MAX_DRIFT, 2 * n_steps + 1), key=abs) if n_steps else [0]
    )
    best, result = 0.0, (0.0, 0.0)
    for drift in drifts:
        place = (delay - drift * passed) / BIN
        lowest = np.floor(place.min()) - 1
        counts = np.bincount((place - lowest).astype(np.int64))
        near = np.convolve(counts, [0.5, 1.0, 0.5], "same")
        if near.max() > best:
            best = float(near.max())
            result = (float((near.argmax() + lowest + 0.5) * BIN), float(drift))
    return result


def _middle(log: Triggers) -> float:
    return float(log.times.min() + log.times.max()) / 2


def _pairs(
    log: Triggers, recording: Triggers, expected: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of triggers of the log and the recording that are one, in time order."""
    sent, found = [], []
    for code in np.unique(log.codes):
        lines = np.flatnonzero(log.codes == code)
        heard = np.flatnonzero(recording.codes == code)
        if not len(heard):
            continue
        gaps = np.abs(recording.times[heard][:, None] - expected[lines])
        nearest = gaps.argmin(axis=0)
        close = gaps.min(axis=0) <= tolerance
        close &= gaps.argmin(axis=1)[nearest] == np.arange(len(lines))  # each the other's nearest
        sent.append(lines[close])
        found.append(heard[nearest[close]])
    if not sent:
        return np.empty(0, int), np.empty(0, int)
    lines, heard = np.concatenate(sent), np.concatenate(found)
    order = np.argsort(log.times[lines], kind="stable")
    lines, heard = lines[order], heard[order]
    rising = np.diff(log.times[lines], prepend=-np.inf) > 0
    return lines[rising], heard[rising]


def _line(log: np.ndarray, recording: np.ndarray, speed: float) -> tuple[float, float]:
    """Speed and start of the straight line through pairs of times."""
    centred = log - log.mean()
    if (centred**2).sum() > 0:
        speed = float((centred * (recording - recording.mean())).sum() / (centred**2).sum())
    if abs(speed - 1) > 2 * MAX_DRIFT:
        speed = 1.0  # a few triggers close together say nothing of the speed
    return speed, float(recording.mean() - speed * log.mean())


def _matched_in_order(log: Sequence[bool], recording: Sequence[bool]) -> list[tuple[int, int]]:
    """Pairs of equal entries in a way from one sequence to the other in fewest edits.

    Of equally short ways, the one that keeps the longest beginning unchanged.
    """
    n, m = len(log), len(recording)
    cost = np.zeros((n + 1, m + 1), dtype=int)  # edits from log[i:] to recording[j:]
    cost[:, m], cost[n, :] = np.arange(n, -1, -1), np.arange(m, -1, -1)
    for i in range(n - 1, -1, -1):
        for j in range(m - 1, -1, -1):
            changed = cost[i + 1, j + 1] + (log[i] != recording[j])
            cost[i, j] = min(changed, cost[i + 1, j] + 1, cost[i, j + 1] + 1)
    pairs = []
    i = j = 0
    while i < n and j < m:
        if cost[i, j] == cost[i + 1, j + 1] + (log[i] != recording[j]):
            if log[i] == recording[j]:
                pairs.append((i, j))
            i, j = i + 1, j + 1
        elif cost[i, j] == cost[i + 1, j] + 1:
            i += 1
        else:
            j += 1
    return pairs
