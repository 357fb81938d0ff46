"""Reproduce a figure of the paper's Table 2: prepare, train, evaluate, and say how it compares.

Usage: python -m scripts.reproduce study=NAME [OPTION=VALUE ...]

  study=NAME        gwilliams2022, broderick2019, brennan2019 or audio_mous
  row=NAME          of Table 2: "wav2vec 2.0" (the default), "DeepMel", "mel, contrastive",
                    "mel, regression" or "random model"
  seeds=N,...       (2036,2037,2038, as published)
  out=FOLDER        for the report (outputs/reproduce/NAME)
  n_processes=N     recordings prepared at a time (1)
  jobs=N, gpus=0,1,..., ddp=N, retries=N, only=SIG,...   as for scripts.run_grid
  KEY=VALUE         any other key of the configuration, such as cache or study_paths.default.NAME;
                    where it changes the signature, accuracies aren't compared with the paper's

Downloads what is missing, fills the cache, trains each seed, and evaluates it with the best
weights. Then reproduction.md and reproduction.csv say, line by line, what was expected, what was
found, and the verdict: counts of the data and of the segments, the leak audit, chance, accuracies.
What is done is not done again: after a fault was mended, give the same command.

For example:
  python -m scripts.reproduce study=gwilliams2022 gpus=0,1 ddp=2 cache=/data/cache
  python -m scripts.reproduce study=brennan2019 'row=mel, contrastive'

Exit code: 0 if every line is as expected, 1 if one isn't or something failed, 2 for a wrong
argument.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd
from dora import Launcher, to_absolute_path

from bm import play
from bm.config import from_hydra
from bm.core.cache import Cache, write_atomically
from bm.core.messages import check_choice
from bm.evaluation.audit import audit_splits
from bm.evaluation.tables import EVERYONE
from bm.grids._explorers import ClipExplorer
from bm.grids.nmi import main_table
from bm.grids.nmi._studies import REGRESSION, SEEDS, judge_by_clip, of_study, prepare
from bm.grids.nmi._studies import STUDIES as OPTIONS_OF
from bm.preparation import Outcome, download_studies, summary
from bm.published.results import SIGNATURES, STUDIES
from bm.solver import Solver
from bm.studies import registry
from bm.train import main as experiment
from scripts import prepare as prepare_script
from scripts import run_grid
from scripts.command import command
from scripts.dataset_table import count, load
from scripts.evaluate import evaluate_solver
from scripts.experiments import Grid, experiments_of
from scripts.grid_results import GridResults, collect
from scripts.options import UsageError, divide
from scripts.verdicts import (
    DIFFERS,
    OK,
    Line,
    compare_accuracies,
    compare_chance,
    compare_counts,
    compare_facts,
)

logger = logging.getLogger(__name__)

REPORT, TABLE = "reproduction.md", "reproduction.csv"
WAV2VEC = "wav2vec 2.0"
BOUND = {"seed", "dset.selections", "model", "continue_sig"}
"""Keys that the paper's row decides."""

TEXT = """# Reproduction of {study}, row "{row}"

{n_fine} of {n_lines} lines are as expected. Accuracies are top-k segment accuracies of single
trials on the test split, mean ± standard deviation over seeds.

| | expected | found | verdict | source |
|---|---|---|---|---|
{lines}

- Options other than published: {changed}.
- Experiments: {experiments}.
- Recordings: {prepared}
{reports}"""


@dataclass(frozen=True)
class Options(run_grid.Options):
    """What the command line asks for (see above)."""

    study: str = ""
    row: str = WAV2VEC
    seeds: list[str] = field(default_factory=lambda: list(map(str, SEEDS)))
    out: Path | None = None
    n_processes: int = 1


@command(__doc__, logging.INFO, log_format="%(asctime)s %(message)s")
def main(arguments: Sequence[str]) -> int:
    """Reproduce what the arguments name; returns the exit code."""
    options, overrides = read(arguments)
    grid = make_grid(options, overrides)
    changed = changed_options(options, overrides)
    config = from_hydra(grid.experiments[0].cfg)
    download_studies(config)
    prepared = prepare_script.prepare(
        prepare_script.Options(n_processes=options.n_processes), config
    )
    print(summary(prepared))
    tasks = run_grid.make_tasks(grid, options, [])
    run_grid.link(grid)
    run_grid.run(tasks, options)
    print(run_grid.table(grid, tasks))
    solvers = list(evaluate(tasks))
    results = collect(grid)
    lines = list(compare(options, grid, results, solvers[0] if solvers else None, changed))
    out = options.out or Path("outputs/reproduce") / options.study
    text = write_report(out, options, lines, changed, tasks, prepared)
    print(f"{text}\nReport: {out / REPORT}")
    return int(not all(line.is_fine for line in lines))


def read(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Divide arguments into options and overrides of the configuration.

    Raises
    ------
    UsageError : a value is missing or isn't what it should be, or a key is decided by the row.
    """
    values, overrides = divide(Options, arguments)
    options = Options(**values)
    options.check()
    check_choice("study", options.study, STUDIES)
    check_choice("row", options.row, main_table.ROWS)
    if not all(seed.isdecimal() for seed in options.seeds):
        raise UsageError(f"seeds={','.join(options.seeds)}: must be whole numbers.")
    bound = BOUND | set(main_table.ROWS[options.row]) | set(OPTIONS_OF[options.study])
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key in bound:
            raise UsageError(f"{key} is decided by study={options.study} and row={options.row}.")
    return options, overrides


def make_grid(options: Options, overrides: Sequence[str] = ()) -> Grid:
    """The experiments of one study and row of `nmi.main_table`."""

    @ClipExplorer
    def explorer(launcher: Launcher) -> None:
        prepare(launcher).bind_(list(overrides))
        for seed in options.seeds:
            bound = of_study(launcher, options.study, int(seed))
            bound(main_table.ROWS[options.row])
            if main_table.ROWS[options.row] == REGRESSION:
                judge_by_clip(bound, REGRESSION)

    name = f"reproduce.{options.study}"
    return Grid(name, explorer, experiments_of(explorer))


def changed_options(options: Options, overrides: Sequence[str]) -> list[str]:
    """Overrides that make other experiments of the published ones."""
    published = make_grid(options).experiments[0]
    return [
        override
        for override in overrides
        if experiment.get_xp([*published.argv, override]).sig != published.sig
    ]


def evaluate(tasks: Sequence[run_grid.Task]) -> Iterator[Solver]:
    """Evaluate each experiment that is done; yields its solver."""
    for task in tasks:
        if task.state == "DONE":
            solver = play.get_solver_from_sig(task.xp.sig)
            logger.info("%s: %s", task.xp.sig, evaluate_solver(solver).headline)
            yield solver


def compare(
    options: Options,
    grid: Grid,
    results: GridResults,
    solver: Solver | None,
    changed: Sequence[str],
) -> Iterator[Line]:
    """Compare all that was found with what should be; the solver is that of any seed."""
    study, first = options.study, grid.experiments[0]
    if options.row == WAV2VEC and str(SEEDS[0]) in options.seeds:
        verdict = OK if first.sig == SIGNATURES[study] else DIFFERS
        yield Line("signature", SIGNATURES[study], first.sig, verdict, "the published code")
    config = from_hydra(first.cfg)
    splits = load(config)
    counts = {"recordings": len(splits.prepared), **count(splits)}
    accuracies = results.accuracies[results.accuracies["subject"] == EVERYONE]
    if solver is not None:
        counts["test samples"] = len(solver.splits.datasets["test"])
        counts["million parameters"] = round(
            sum(weight.numel() for weight in solver.models.parameters()) / 1e6, 2
        )
    if len(accuracies):
        counts["candidates"] = int(accuracies["n_candidates"].iloc[0])
    selection = config.selections[study]
    facts = getattr(registry[selection["study"]], "facts", None)
    if facts is not None and not selection.get("faithful"):  # then the paper's counts hold
        yield from compare_facts(facts, counts)
    yield from compare_counts(study, options.row, counts)
    if solver is not None:
        cache = Cache(to_absolute_path(config.cache))
        leaks = audit_splits(solver.splits, solver.scaler.fitted_on, cache).leaks
        found = "; ".join(leak.message for leak in leaks) or "no leak"
        yield Line("leak audit", "no leak", found, DIFFERS if leaks else OK, "docs/evaluation.md")
    top10 = accuracies[accuracies["k"] == 10]
    yield compare_chance(study, 100 * float(top10["chance"].iloc[0]) if len(top10) else None)
    of_seeds = {
        f"top{k}": (100 * accuracies.loc[accuracies["k"] == k, "accuracy"]).tolist()
        for k in (10, 1)
    }
    yield from compare_accuracies(study, options.row, of_seeds, len(options.seeds), not changed)


def write_report(
    out: Path,
    options: Options,
    lines: Sequence[Line],
    changed: Sequence[str],
    tasks: Sequence[run_grid.Task],
    prepared: Sequence[Outcome],
) -> str:
    """Write the report as Markdown, which is returned, and its lines as CSV."""
    cells = [[line.what, line.expected, line.found, line.verdict, line.source] for line in lines]
    rows = ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in cells]
    failed = [task for task in tasks if task.state != "DONE"]
    reports = [
        f"- {task.xp.sig}: {task.xp.folder}/evaluation/report.html\n"
        for task in tasks
        if task not in failed
    ]
    reports += [f"- {one.xp.sig}: {one.state}: {run_grid.reason(one.xp)}\n" for one in failed]
    text = TEXT.format(
        study=STUDIES[options.study],
        row=options.row,
        n_fine=sum(line.is_fine for line in lines),
        n_lines=len(lines),
        lines="\n".join(rows),
        changed=", ".join(f"`{option}`" for option in changed) or "none",
        experiments=f"{len(tasks) - len(failed)} of {len(tasks)} done",
        prepared=summary(prepared),
        reports="".join(reports),
    )
    out.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(line) for line in lines])
    write_atomically(out / TABLE, partial(table.to_csv, index=False))
    write_atomically(out / REPORT, lambda part: part.write_text(text, encoding="utf-8"))
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
