"""Look for leaks between training and test, as every run does before it trains.

Usage: python -m scripts.audit sig=SIG
       python -m scripts.audit 'selections=[NAME,...]' [KEY=VALUE ...]

Asks whether anybody hears in the test split what anybody hears in training (by the content of the
sound, not by file names), whether segments lie within their blocks and speech models hear nothing
beyond them, whether scales were fitted on training segments alone, and which candidates and words
occur twice. docs/evaluation.md explains the answers.

  sig=SIG             a trained experiment, with the scales of its checkpoint
  selections=[...]    data that nothing was trained on yet
  KEY=VALUE           any key of the configuration, such as preset=demo or cache=FOLDER

For example:
  python -m scripts.audit sig=557f5f8a
  python -m scripts.audit 'selections=[bids]' selections.bids.root=/data/mine

Exit code: 0 without a leak, 1 with one or with data that can't be used, 2 for a wrong argument.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from dora import to_absolute_path

from bm import play
from bm.build import build_data, build_scaler
from bm.core.cache import Cache
from bm.evaluation.audit import Audit, audit_splits
from scripts.command import command
from scripts.options import UsageError, compose, read_options


@dataclass(frozen=True)
class Options:
    """What the command line asks for (see above)."""

    selections: list[str] = field(default_factory=list)


@command(__doc__)
def main(arguments: Sequence[str]) -> int:
    """Audit what the arguments name; returns the exit code."""
    audit = _audit(arguments)
    print(audit)
    n_leaks = len(audit.leaks)
    print(f"{n_leaks} leak(s)." if n_leaks else "No leak.")
    return 1 if n_leaks else 0


def _audit(arguments: Sequence[str]) -> Audit:
    if arguments[0].startswith("sig="):
        if len(arguments) > 1:
            raise UsageError(f"{arguments[1]}: sig= stands alone, its configuration is known.")
        solver = play.get_solver_from_sig(arguments[0].removeprefix("sig="))
        cache = Cache(to_absolute_path(solver.about["config"]["cache"]))
        return audit_splits(solver.splits, solver.scaler.fitted_on, cache)
    options, overrides = read_options(Options, arguments)
    config = compose(options.selections, overrides)
    splits = build_data(config, "cpu").splits
    scaler = build_scaler(config, splits)
    return audit_splits(splits, scaler.fitted_on, Cache(to_absolute_path(config.cache)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
