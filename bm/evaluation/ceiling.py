"""How well the best possible decoder does on simulated recordings.

Enters: simulated recordings and the segments to be told apart. Leaves: the top-k accuracy that no
decoder of single windows can exceed, but by chance.

The ideal decoder knows the clean response of each listener to each candidate and the statistics of
the noise. Among equally likely candidates the likelihood ratio against "no response" orders them
best (Neyman and Pearson 1933, doi:10.1098/rsta.1933.0009): for a window x, a response r and noise
of covariance S, its logarithm is ``x' inv(S) r - r' inv(S) r / 2``, a matched filter. It gets
windows without blinks, heartbeats, jumps and noisy sensors, at the native rate and unclamped: more
than any trained network gets. Flat sensors are missing for both.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # its parts are imported when they are used: transforms take long

from bm.core.messages import did_you_mean
from bm.studies.simulated.simulation import SAMPLE_RATE, Listener, brain_spectrum
from bm.studies.synthetic import SyntheticRecording

logger = logging.getLogger(__name__)

MARGIN = 2
"""Samples added on both sides: windows at another rate may begin or end between two samples."""
CUTOFF = 30.0
"""Hz; above it, there are noise and less than a thousandth of the response's power over noise."""
CHUNK = 64


def ideal_accuracy(
    queries: pd.DataFrame,
    recordings: Sequence[SyntheticRecording],
    tmin: float = -0.5,
    tmax: float = 2.5,
    ks: Sequence[int] = (1, 5, 10),
    max_queries: int = 3000,
) -> dict[int, float]:
    """Top-k accuracy of the ideal decoder, for each k.

    Parameters
    ----------
    queries : one row per segment: ``recording`` (index), ``time`` of its anchor in seconds of the
        recording, ``candidate`` (index of the true one). All candidates that occur are held
        against each query.
    recordings : what ``recording`` counts.
    tmin, tmax : window around the anchor in seconds.
    ks : sizes of the list of best candidates.
    max_queries : when there are more, whole recordings are left out, evenly over the listeners,
        until about that many remain; their number is logged. Candidates stay the same.

    Raises
    ------
    ValueError : a column is missing, or a listener never hears one of the candidates.
    """
    for column in ("recording", "time", "candidate"):
        if column not in queries:
            hint = did_you_mean(column, queries.columns)
            raise ValueError(f"queries need a column {column!r}. {hint}")
    if not len(queries):
        raise ValueError("queries are empty: there is nothing to tell apart.")
    length = round((tmax - tmin) * SAMPLE_RATE) + 1 + 2 * MARGIN
    first = np.floor((queries["time"] + tmin) * SAMPLE_RATE + 0.5 + 1e-6).astype(int) - MARGIN
    queries = queries.assign(
        first=first, subject=[recordings[index].subject_uid for index in queries["recording"]]
    )
    candidates = np.unique(queries["candidate"])
    covariance = _window_covariance(length)
    hits: dict[int, list[np.ndarray]] = {k: [] for k in ks}
    templates = _Templates(queries, recordings, candidates, length)
    for index in _choose(queries, max_queries):
        own = queries[queries["recording"] == index]
        recording = recordings[index]
        whiten = _Whitener.of(recording.listener, recording.bad_sensors()[1], covariance)
        heard = whiten(_windows(recording.without_artefacts(), own["first"].to_numpy(), length))
        known = whiten(templates.of(recording.subject_uid))
        scores = heard @ known.T - 0.5 * (known**2).sum(axis=1)
        target = np.searchsorted(candidates, own["candidate"])
        for k in ks:
            hits[k].append(_is_hit(scores, target, k))
    n_used = sum(map(len, hits[ks[0]]))
    logger.info(
        "Ceiling from %d of %d segments, %d candidates.", n_used, len(queries), len(candidates)
    )
    return {k: float(np.concatenate(parts).mean()) for k, parts in hits.items()}


@dataclass(frozen=True)
class _Whitener:
    """Turns windows into coordinates in which the noise is independent with variance 1.

    The covariance of brain noise is a product of one over time and one over sensors, and the noise
    of the sensors is white: so the principal directions of these two suffice.
    """

    good: np.ndarray
    over_sensors: np.ndarray
    over_time: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, listener: Listener, flat: np.ndarray, covariance: np.ndarray) -> "_Whitener":
        good = np.setdiff1d(np.arange(listener.fields.shape[1]), flat)
        fields = listener.noise_fields[:, good]
        sensor_powers, over_sensors = np.linalg.eigh(fields.T @ fields)
        time_powers, over_time = np.linalg.eigh(covariance)
        kept = time_powers > brain_spectrum(np.array([CUTOFF])) * SAMPLE_RATE / 2
        time_powers, over_time = time_powers[kept], over_time[:, kept]
        brain = time_powers.clip(0)[:, None] * sensor_powers.clip(0)
        scale = 1 / np.sqrt(brain + listener.sensor_noise**2)
        return cls(
            good,
            over_sensors.astype(np.float32),
            over_time.T.astype(np.float32),
            scale.astype(np.float32),
        )

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """[N, T, C] in T or V to [N, K], K kept directions of time and sensors."""
        white = np.empty((len(windows), self.scale.size), np.float32)
        for begin in range(0, len(windows), CHUNK):
            part = self.over_time @ windows[begin : begin + CHUNK]
            part = (part[:, :, self.good] @ self.over_sensors) * self.scale
            white[begin : begin + CHUNK] = part.reshape(len(part), -1)
        return white


class _Templates:
    """Clean responses of each listener to all candidates, each from the first time it is heard."""

    def __init__(
        self,
        queries: pd.DataFrame,
        recordings: Sequence[SyntheticRecording],
        candidates: np.ndarray,
        length: int,
    ):
        self.occurrences = queries.drop_duplicates(["subject", "candidate"])
        self.recordings = recordings
        self.candidates = candidates
        self.length = length
        self._latest: tuple[str, np.ndarray] = ("", np.empty(0))

    def of(self, subject: str) -> np.ndarray:
        """[V, T, C] responses of one listener."""
        if self._latest[0] == subject:
            return self._latest[1]
        own = self.occurrences[self.occurrences["subject"] == subject].sort_values("candidate")
        missing = np.setdiff1d(self.candidates, own["candidate"])
        if len(missing):
            raise ValueError(
                f"{subject} never hears {len(missing)} of {len(self.candidates)} candidates "
                f"(such as number {missing[0]}): the ideal decoder can't know the response. Every "
                "listener must have segments of all candidates among the queries."
            )
        windows: np.ndarray | None = None
        for index in np.unique(own["recording"]):
            here = (own["recording"] == index).to_numpy()
            response = self.recordings[index].clean_response()
            part = _windows(response, own["first"][here].to_numpy(), self.length)
            if windows is None:
                windows = np.empty((len(own), *part.shape[1:]), np.float32)
            windows[here] = part
        assert windows is not None  # there is at least one candidate
        self._latest = (subject, windows)
        return windows


def _window_covariance(length: int) -> np.ndarray:
    """[T, T] covariance of brain noise of power 1 within a window."""
    n_fft = 1 << 16
    density = brain_spectrum(scipy.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE))
    return scipy.linalg.toeplitz(scipy.fft.irfft(density * SAMPLE_RATE / 2, n_fft)[:length])


def _windows(signal: np.ndarray, first: np.ndarray, length: int) -> np.ndarray:
    """[N, T, C] windows of a signal; what lies outside of it is zero."""
    windows = np.zeros((len(first), length, signal.shape[1]), np.float32)
    for window, begin in zip(windows, first, strict=True):
        skip = max(0, -begin)
        part = signal[begin + skip : begin + length]
        window[skip : skip + len(part)] = part
    return windows


def _is_hit(scores: np.ndarray, target: np.ndarray, k: int) -> np.ndarray:
    """[N] chance that the truth is among the k best; a fraction where it ties with others."""
    true_score = scores[np.arange(len(scores)), target][:, None]
    n_better, n_tied = (scores > true_score).sum(axis=1), (scores == true_score).sum(axis=1)
    return ((k - n_better) / n_tied).clip(0, 1)


def _choose(queries: pd.DataFrame, max_queries: int) -> list[int]:
    """Recordings with about `max_queries` queries in all, as many of each listener, in order."""
    present = queries.drop_duplicates("recording").sort_values("recording")
    turn = present.groupby("subject").cumcount()
    n_listeners = int((turn == 0).sum())
    n_chosen = max(1, int(max_queries / (len(queries) / len(present))))
    chosen = present[turn < max(1, n_chosen // n_listeners)]
    if n_chosen < n_listeners:
        chosen = chosen.iloc[np.arange(n_chosen) * n_listeners // n_chosen]
    return chosen.sort_values(["subject", "recording"])["recording"].tolist()
