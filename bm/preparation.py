"""Prepare recordings before anything is trained, so that training finds all it needs in the cache.

Enters: a configuration. Leaves: the studies' files where they belong; signals, events and features
in the cache; and for each recording whether it can be used, or why not. One recording is in memory
at a time.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from dora import to_absolute_path

from bm.build import build_features, build_recordings, build_rules, build_selections
from bm.config import Config
from bm.core.cache import Cache
from bm.core.messages import DataError
from bm.core.progress import progress
from bm.features import build_table
from bm.segments.prepare import prepare_one

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a recording.

    Attributes
    ----------
    recording : its study and name.
    seconds : that it took.
    reason : why it can't be used; empty if it can.
    """

    recording: str
    seconds: float
    reason: str = ""


class Preparer:
    """Prepares the recordings of a configuration, in any order.

    Attributes
    ----------
    recordings : all of them, in their final order.

    Raises
    ------
    ValueError : a selection or a feature doesn't exist, or a whole study can't be read.
    """

    def __init__(self, config: Config):
        self.config = config
        self.recordings = build_recordings(config)
        self._signals, self._blocks = build_rules(config.dset)
        self._features = build_features(config)
        self._features += build_features(config, config.dset.extra_test_features)
        self._cache = Cache(to_absolute_path(config.cache))

    def prepare(self, index: int) -> Outcome:
        """Prepare one recording; if it is broken, say why."""
        recording = self.recordings[index]
        begin = time.monotonic()
        reason = ""
        try:
            self._fill_cache(index)
        except DataError as error:
            if self.config.dset.on_bad_recording == "error":
                raise
            reason = str(error)
        return Outcome(str(recording), time.monotonic() - begin, reason)

    def _fill_cache(self, index: int) -> None:
        item = prepare_one(self.recordings[index], self._signals, self._blocks)
        n_samples, rate = item.signal.n_samples, item.signal.sample_rate
        for feature in self._features:
            if (item.events["kind"] == feature.event_kind).any():  # others may have such events
                build_table(feature, [item.events], [n_samples], rate, self._cache)


def download_studies(config: Config) -> None:
    """Download what the selections need and what isn't there.

    Raises
    ------
    DownloadError : something can't be had and ``dset.on_bad_recording=error``; otherwise that is
        logged, and what is there is used.
    """
    from bm.studies.download import DownloadError, download_selection  # takes long: HTTP and TLS

    for selection in build_selections(config):
        try:
            download_selection(selection)
        except DownloadError as error:
            if config.dset.on_bad_recording == "error":
                raise
            logger.error("%s", error)


def prepare_recordings(config: Config, indices: Iterable[int] | None = None) -> list[Outcome]:
    """Prepare recordings one after the other.

    Parameters
    ----------
    config : what is to be trained later.
    indices : of the recordings; None: all.

    Raises
    ------
    DataError : there is none, or one is broken and ``dset.on_bad_recording=error``.
    """
    preparer = Preparer(config)
    if not preparer.recordings:
        raise DataError("The selection has no recordings (is its path right?).")
    chosen = list(range(len(preparer.recordings)) if indices is None else indices)
    return [preparer.prepare(index) for index in progress(chosen, "preparing", "recording")]


def summary(outcomes: Iterable[Outcome]) -> str:
    """``11 recordings ok, 1 failed:`` and a line for each that did."""
    outcomes = list(outcomes)
    failed = [outcome for outcome in outcomes if outcome.reason]
    n_ok = len(outcomes) - len(failed)
    head = f"{n_ok} recording{'' if n_ok == 1 else 's'} ok, {len(failed)} failed"
    lines = [_line(outcome) for outcome in failed]
    return "\n  ".join([f"{head}:" if lines else f"{head}.", *lines])


def _line(outcome: Outcome) -> str:
    """Most reasons begin with the recording; it isn't said twice."""
    return f"{outcome.recording}: {outcome.reason.removeprefix(f'{outcome.recording}: ')}"
