"""Check that what was heard and what was recorded fit together in time.

Usage: python -m scripts.check_alignment 'selections=[NAME,...]' [OPTION=VALUE ...]

For each recording, finds the lag at which the brain follows the sound (or the words, where no
sounds are at hand), at which words follow the sound, and at which a recorded copy of the sound
follows the sound. A response that can't be told from chance is "no response found"; one that does
not peak 0 to 400 ms after the sound is MISALIGNED, as is one that starts later than 250 ms.

Options:
  out=FOLDER        for alignment.csv and a figure of each recording (outputs/alignment)
  sample_rate=HZ    of the signal, 40 or more (dset.sample_rate: what training uses is in the cache)
  reach=SECONDS     largest error that is looked for (1)
  KEY=VALUE         any key of the configuration, such as cache, dset.n_recordings, study_paths...

For example:
  python -m scripts.check_alignment 'selections=[synthetic]'
  python -m scripts.check_alignment 'selections=[bids]' selections.bids.root=/data/mine reach=5
  python -m scripts.check_alignment 'selections=[brennan2019]' selections.brennan2019.faithful=true

Exit code: 0 if all is well, 1 if a recording is misaligned or can't be checked, 2 for a wrong
argument.
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bm.build import build_recordings
from bm.core.messages import DataError
from bm.core.progress import progress
from bm.evaluation.alignment import (
    ALL,
    MISALIGNED,
    Alignment,
    check_alignment,
    pool_row,
    table_row,
)
from bm.recordings import Recording
from bm.viz import plot_alignment
from scripts.command import command
from scripts.options import compose, read_options

FAILED = "FAILED"
TABLE = "alignment.csv"
PRINTED = (
    "recording", "words", "stimulus", "peak_ms", "start_ms", "over_chance", "p", "word_peak_ms",
    "word_to_sound_ms", "sound_channel_ms", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What the command line asks for (see above)."""

    selections: list[str] = field(default_factory=list)
    out: Path = Path("outputs/alignment")
    sample_rate: float | None = None
    reach: float = 1.0


@command(__doc__)
def main(arguments: Sequence[str]) -> int:
    """Check what the arguments name; returns the exit code."""
    options, overrides = read_options(Options, arguments)
    config = compose(options.selections, overrides)
    recordings = build_recordings(config)
    sample_rate = options.sample_rate or config.dset.sample_rate
    rows = check_all(recordings, sample_rate, options.reach, options.out)
    if not rows:
        raise DataError("The selection has no recordings (is its path right?).")
    table = pd.DataFrame(rows)
    table.to_csv(options.out / TABLE, index=False)
    _print(table)
    print(f"Table and figures: {options.out}")
    return int(table["verdict"].isin([MISALIGNED, FAILED]).any())


def check_all(
    recordings: Sequence[Recording], sample_rate: float, reach: float, out: Path
) -> list[dict[str, Any]]:
    """One row for each recording, and one for each study as a whole; figures go into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    found: dict[str, list[Alignment]] = defaultdict(list)
    for recording in progress(recordings, "alignment", "recording"):
        try:
            alignment = check_alignment(recording, sample_rate, reach)
        except DataError as error:
            who = {"study": recording.study, "recording": recording.recording_uid}
            rows.append({**who, "verdict": FAILED, "reason": str(error)})
            continue
        rows.append(table_row(alignment))
        found[recording.study].append(alignment)
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in recording.recording_uid)
        plot_alignment(alignment).savefig(out / f"{recording.study}-{name}.png", dpi=100)
    return rows + [pool_row(group) for group in found.values() if len(group) > 1]


def _print(table: pd.DataFrame) -> None:
    columns = [column for column in PRINTED if column in table and table[column].notna().any()]
    shown = table[columns].assign(recording=table["study"] + "/" + table["recording"])
    whole = [c for c in columns if c.endswith("_ms") or c == "words"]
    shown[whole] = shown[whole].astype("Int64")
    print(shown.to_string(index=False, na_rep="", formatters={"p": "{:.0e}".format}))
    for _, row in table[table["reason"] != ""].iterrows():
        print(f"{row['study']}/{row['recording']}: {row['reason']}")
    counts = table["verdict"][table["recording"] != ALL].value_counts()
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
