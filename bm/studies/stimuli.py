"""How long sound events last, whether their files are there or not.

Enters: sound files, and when the last word in each ends. Leaves: durations.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from bm.core.messages import DataError
from bm.recordings.sound import END_TOLERANCE, sound_duration
from bm.studies.formats.files import missing

logger = logging.getLogger(__name__)


class SoundLengths:
    """Lengths of a study's sounds; files that are absent are logged, each once."""

    def __init__(self) -> None:
        self._reported: set[Path] = set()

    def of(self, files: Sequence[Path], spoken: Sequence[float], source: str) -> list[float]:
        """Duration of each file in seconds; where it is absent, that of what is spoken in it.

        Blocks and segments are the same then, but there is nothing to compute features from.

        Parameters
        ----------
        files : one for each sound event.
        spoken : seconds after which the last word in it ends.
        source : what says so, for messages.

        Raises
        ------
        DataError : a file is truncated, or shorter than its words.
        """
        durations = []
        for file, end in zip(files, spoken, strict=True):
            durations.append(sound_duration(file) if file.exists() else float(end))
            if end > durations[-1] + END_TOLERANCE:
                raise DataError(
                    f"{file} lasts {durations[-1]:.3f} s, but by {source} it has words in it up to "
                    f"{end:.3f} s. Is it the right file, and complete?"
                )
        self._report([file for file in files if not file.exists()])
        return durations

    def _report(self, absent: Sequence[Path]) -> None:
        new = [file for file in absent if file not in self._reported]
        self._reported.update(new)
        if new:
            more = f" ({len(new)} such sound files)" if len(new) > 1 else ""
            logger.warning(
                "%s%s It is taken to last until its last word ends, and has no features.",
                missing(new[0]),
                more,
            )
