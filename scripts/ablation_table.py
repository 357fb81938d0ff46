"""Make docs/ablation-simulated.md of the experiments of the grid `ablation_simulated`.

Usage: python -m scripts.ablation_table [out=docs/ablation-simulated.md]

The experiments must have been run: dora grid ablation_simulated, or, without SLURM, one by one
(bm/grids/ablation_simulated.py says how). Accuracies are those that each run found with its best
epoch. The ceiling is that of an ideal decoder of the same test segments.

For example:
  python -m scripts.ablation_table

Exit code: 0 if the table is complete, 1 if experiments are missing from it, 2 for a wrong argument.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bm import play
from bm.core.cache import write_atomically
from bm.grids.ablation_simulated import COMMON, PAPER, ROWS, SEEDS
from bm.train import main as experiment
from scripts.arguments import UsageError
from scripts.command import command
from scripts.evaluate import evaluate_solver

OUT = "docs/ablation-simulated.md"
K = 10
REFERENCE = "reference"
EPOCHS = COMMON["optim.epochs"]

TEXT = """# Ablations on simulated listeners

Each ablation of the paper, trained and tested on **simulated** data: six simulated listeners of one
story of 22 minutes, with blinks, heartbeats, bad sensors and jumps. This shows that every variant
builds, trains and is evaluated, and which parts matter *on this simulation, after short training*.
It says nothing about real brains.

- Top-{k} segment accuracy in percent with the best epoch, among {n_candidates} candidates: mean ±
  standard deviation over {n_seeds} seeds ({seeds}), and each seed.
- Chance is {chance:.1f} %. The ceiling, {ceiling:.1f} %, is that of an ideal decoder that knows the
  response of each simulated listener and the noise.
- "Difference" is to the reference, in points. "Paper" is the change that the paper found on four
  real datasets (mean, in points): only the signs may be compared.
- The model is that of `preset=demo` in fp32 after {epochs} epochs, far from converged: what slows
  down the first steps looks harmful here, what speeds them up looks useful.
- Rows whose difference has another sign than the paper's: {others}.

| | options | top-{k} | seeds | difference | paper |
|---|---|---|---|---|---|
{rows}

{missing}Made by `python -m scripts.ablation_table` from the experiments of the grid
`ablation_simulated` (bm/grids/ablation_simulated.py says how to run them).
"""


@dataclass(frozen=True)
class Results:
    """What the experiments found.

    Attributes
    ----------
    accuracies : top-10 accuracies by row, one for each seed.
    chance : accuracy of guessing.
    n_candidates : segments to choose from.
    missing : (row, seed, signature) of experiments without a test.
    """

    accuracies: dict[str, list[float]]
    chance: float
    n_candidates: int
    missing: list[tuple[str, int, str]]


@command(__doc__, logging.INFO, needs_arguments=False)
def main(arguments: Sequence[str]) -> int:
    """Write the table; returns the exit code."""
    if len(arguments) > 1 or any(not argument.startswith("out=") for argument in arguments):
        raise UsageError(f"The only option is out={OUT}.")
    out = Path(arguments[0].removeprefix("out=") if arguments else OUT)
    results = collect()
    for row, seed, signature in results.missing:
        print(f"{signature} ({row}, seed {seed}) has no test yet.", file=sys.stderr)
    if not all(results.accuracies.values()):
        print("Run at least one seed of each row: dora run -f SIG", file=sys.stderr)
        return 1
    table = write_table(results, find_ceiling())
    write_atomically(out, lambda part: part.write_text(table, encoding="utf-8"))
    print(out)
    return 1 if results.missing else 0


def arguments_of(row: Mapping[str, object], seed: int) -> list[str]:
    """Arguments of `dora run` for one experiment."""
    return list(experiment.value_to_argv([COMMON, {"seed": seed}, dict(row)]))


def collect() -> Results:
    """Read the last test of each experiment."""
    accuracies: dict[str, list[float]] = {name: [] for name in ROWS}
    missing, chance, n_candidates = [], float("nan"), 0
    for name, row in ROWS.items():
        for seed in SEEDS:
            xp = experiment.get_xp(arguments_of(row, seed))
            file = Path(xp.folder) / "history.json"
            history = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
            tests = [epoch["test"] for epoch in history if "test" in epoch]
            if not tests:
                missing.append((name, seed, xp.sig))
                continue
            accuracies[name].append(tests[-1][f"segment_top{K}"])
            chance, n_candidates = tests[-1][f"chance_top{K}"], int(tests[-1]["n_candidates"])
    return Results(accuracies, chance, n_candidates, missing)


def find_ceiling() -> float:
    """Top-10 accuracy of an ideal decoder on the test segments of the reference."""
    xp = experiment.get_xp(arguments_of(ROWS[REFERENCE], SEEDS[0]))
    with TemporaryDirectory() as folder:
        evaluation = evaluate_solver(play.get_solver_from_sig(xp.sig), Path(folder))
    if evaluation.ceiling is None:
        raise ValueError(f"The ceiling of {xp.sig} is unknown: see the warnings above.")
    return evaluation.ceiling[K]


def write_table(results: Results, ceiling: float) -> str:
    """The page, as Markdown."""
    means = {name: 100 * float(np.mean(values)) for name, values in results.accuracies.items()}
    lines, others = [], []
    for name, values in results.accuracies.items():
        options = " ".join(f"`{key}={_shown(value)}`" for key, value in ROWS[name].items())
        spread = f" ± {100 * float(np.std(values, ddof=1)):.1f}" if len(values) > 1 else ""
        seeds = ", ".join(f"{100 * value:.1f}" for value in values)
        difference = "" if name == REFERENCE else f"{means[name] - means[REFERENCE]:+.1f}"
        if (means[name] - means[REFERENCE]) * PAPER.get(name, 0) < 0:
            others.append(name)
        paper = f"{PAPER[name]:+.1f}" if name in PAPER else ""
        lines.append(
            f"| {name} | {options} | {means[name]:.1f}{spread} | {seeds} | {difference} | {paper} |"
        )
    return TEXT.format(
        k=K,
        n_candidates=results.n_candidates,
        n_seeds=len(SEEDS),
        seeds=", ".join(map(str, SEEDS)),
        chance=100 * results.chance,
        ceiling=100 * ceiling,
        epochs=EPOCHS,
        others=", ".join(others) or "none",
        rows="\n".join(lines),
        missing=f"{len(results.missing)} experiments are missing.\n\n" if results.missing else "",
    )


def _shown(value: bool | float) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
