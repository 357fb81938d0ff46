"""Train and judge a small model on the built-in simulated study: what `make demo` runs.

Usage: python -m scripts.demo [KEY=VALUE ...]

  KEY=VALUE    any key of the configuration: the arguments go to `dora run` as they are

For example:
  python -m scripts.demo
  python -m scripts.demo optim.epochs=2 seed=2037

Exit code: 0 if all went well, else that of `dora run`.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bm import play
from bm.train import main as experiment
from scripts.command import command
from scripts.evaluate import evaluate_solver

PRESET = "preset=demo"


@command(__doc__, needs_arguments=False)
def main(overrides: Sequence[str]) -> int:
    """Train, evaluate, and print one line of result; returns the exit code."""
    arguments = [PRESET, *overrides]
    trained = subprocess.run([sys.executable, "-m", "dora", "-P", "bm", "run", *arguments])
    if trained.returncode:
        return trained.returncode
    solver = play.get_solver_from_sig(experiment.get_xp(arguments).sig)
    evaluation = evaluate_solver(solver)
    report = evaluation.report.resolve()
    if report.is_relative_to(Path.cwd()):
        report = report.relative_to(Path.cwd())
    print(f"{evaluation.headline} report: {report}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
