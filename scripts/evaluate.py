"""From a trained solver to its evaluation: tables (``*.csv``) and ``report.html``."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bm import play
from bm.build import build_windows
from bm.config import Config, from_dict
from bm.core.cache import write_atomically
from bm.core.layout import NO_POSITION, SensorMap
from bm.evaluation import Retrieval
from bm.evaluation.ceiling import ideal_accuracy
from bm.evaluation.examples import words_in_windows
from bm.evaluation.pooling import Pool
from bm.evaluation.report import ReportContent, percent, write_report
from bm.evaluation.tables import accuracy_table, metadata_table, write_tables
from bm.metrics import chance
from bm.recordings import Recording
from bm.segments import WindowRule
from bm.solver import Solver
from bm.studies.synthetic import SyntheticRecording

logger = logging.getLogger(__name__)

FOLDER = "evaluation"
CONTROLS_TABLE, LAGS_TABLE, POOLED = "controls.csv", "lags.csv", "pooled.csv"
MAX_MAPS = 4
AT_CHANCE = "the accuracy should be that of guessing."
CONTROLS = {
    "noise": f"The brain signals were replaced by noise (dset.control=noise): {AT_CHANCE}",
    "shuffled": f"Brain signals and speech were shifted apart (dset.control=shuffled): {AT_CHANCE}",
}
RANDOM = f"The estimates are random numbers (test.wer_random=true): {AT_CHANCE}"


@dataclass(frozen=True)
class Evaluation:
    """What became of an evaluation.

    Attributes
    ----------
    report : the HTML file; the tables lie beside it.
    retrieval : outcome for each test segment.
    ceiling : top-k accuracy of the best possible decoder, where all listeners are simulated.
    """

    report: Path
    retrieval: Retrieval
    ceiling: Mapping[int, float] | None

    @property
    def headline(self) -> str:
        """``top-10 segment accuracy 71.3 % (chance 4.2 %, 240 candidates, ceiling 93.0 %)``."""
        return self.line(self.retrieval.ks[-1]) if self.retrieval.ks else _too_few(self.retrieval)

    def lines(self) -> list[str]:
        """One line as `headline` for each k."""
        return [self.line(k) for k in self.retrieval.ks] or [_too_few(self.retrieval)]

    def line(self, k: int) -> str:
        """The line of one k."""
        n_candidates = self.retrieval.n_candidates
        context = [f"chance {percent(chance(k, n_candidates))}", f"{n_candidates} candidates"]
        if self.ceiling is not None and k in self.ceiling:
            context.append(f"ceiling {percent(self.ceiling[k])}")
        accuracy = percent(self.retrieval.accuracy(k))
        return f"top-{k} segment accuracy {accuracy} ({', '.join(context)})"


def evaluate_solver(solver: Solver, out: Path | None = None) -> Evaluation:
    """Retrieve the test segments with the best weights, and write tables and report.

    Parameters
    ----------
    solver : trained.
    out : where to write; None: the folder ``evaluation`` of the experiment.

    Raises
    ------
    ValueError : neither `out` nor a folder of the experiment.
    """
    if out is None:
        if solver.folder is None:
            raise ValueError(
                "The solver has no folder: say where to write the report (out=FOLDER)."
            )
        out = solver.folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    config = from_dict(solver.about["config"])
    window = build_windows(config.dset)["test"]
    pool = Pool(solver.splits.datasets["test"])
    retrieval = solver.retrieve(watch=pool)
    pooled = pool.table(retrieval)
    ceiling = find_ceiling(solver, retrieval, window) if config.dset.control == "none" else None
    splits = solver.splits
    write_tables(
        out,
        accuracy_table(retrieval, splits.subjects, ceiling),
        metadata_table(retrieval, splits.subjects, splits.recordings),
    )
    write_atomically(out / POOLED, partial(pooled.to_csv, index=False))
    events = [item.events for item in splits.prepared]
    content = ReportContent(
        title=f"Speech decoded from brain signals: {', '.join(_studies(solver))}",
        signature=_signature(solver),
        is_simulated=bool(_simulated(solver)),
        configuration=[(key, value, source) for key, value, source in solver.about["provenance"]],
        history=solver.history,
        retrieval=retrieval,
        subjects=splits.subjects,
        heard=words_in_windows(
            retrieval.candidates, events, window.tmin, window.tmax - solver.training.delay
        ),
        window=window.tmax - window.tmin,
        ceiling=ceiling,
        sensor_maps=sensor_maps(solver),
        facts=find_facts(solver, config),
        warnings=_warnings(config),
        set_aside=list(splits.set_aside.values()),
        controls=_read_for(out / CONTROLS_TABLE, solver),
        lags=_read_for(out / LAGS_TABLE, solver),
        pooled=pooled,
    )
    return Evaluation(write_report(out, content), retrieval, ceiling)


def evaluate_sig(sig: str, out: Path | None = None) -> list[str]:
    """Evaluate an experiment by its signature; returns lines that tell of it."""
    return _tell(evaluate_solver(play.get_solver_from_sig(sig), out))


def evaluate_checkpoint(path: Path, out: Path | None = None) -> list[str]:
    """Evaluate a checkpoint file, or the folder that holds one; returns lines that tell of it."""
    return _tell(evaluate_solver(play.get_solver_from_checkpoint(path), out))


def find_ceiling(
    solver: Solver, retrieval: Retrieval, window: WindowRule
) -> dict[int, float] | None:
    """Top-k accuracy of the best possible decoder; None unless all listeners are simulated."""
    recordings = _simulated(solver)
    if len(recordings) < len(solver.splits.prepared) or not retrieval.ks:
        return None
    try:
        return ideal_accuracy(
            retrieval.table, recordings, window.tmin, window.tmax, tuple(retrieval.ks)
        )
    except ValueError as error:
        logger.warning("The ceiling is unknown: %s", error)
        return None


@torch.no_grad()
def sensor_maps(solver: Solver) -> list[SensorMap]:
    """Attention of the best weights; recordings with the same sensors share a map."""
    merger = getattr(solver.model, "merger", None)
    if merger is None:
        return []
    with solver.best():
        weights = merger.attention(solver.layouts).sum(dim=1).cpu().numpy()  # [L, C]
    tables = [dataset.table for dataset in solver.splits.datasets.values()]
    layout_of = {
        int(recording): int(layout)
        for table in tables
        for recording, layout in zip(table["recording"], table["layout"], strict=True)
    }
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index in sorted(layout_of):
        prepared = solver.splits.prepared[index]
        alike[(prepared.recording.study, *prepared.signal.sensors.names)].append(index)
    largest = sorted(alike.items(), key=_n_recordings, reverse=True)
    if len(largest) > MAX_MAPS:
        logger.info("Attention shown for %d of %d sets of sensors.", MAX_MAPS, len(largest))
    found = []
    for (study, *names), recordings in largest[:MAX_MAPS]:
        layouts = [layout_of[index] for index in recordings]
        places = np.stack(
            [solver.splits.prepared[index].signal.sensors.positions for index in recordings]
        )  # [R, C, 2]
        present = ~(places == NO_POSITION).all(axis=2)
        if not present.any():
            continue
        n_present = present.sum(axis=0).clip(min=1)
        mean = np.where(present, weights[layouts, : len(names)], 0).sum(axis=0) / n_present
        positions = places[present.argmax(axis=0), np.arange(len(names))]
        title = f"{study}, {len(names)} sensors, {_count(len(recordings), 'recording')}"
        found.append(SensorMap(title, names, positions, mean))
    return found


def find_facts(solver: Solver, config: Config) -> list[tuple[str, str]]:
    """Sizes, versions and the like, by name."""
    splits, about = solver.splits, solver.about
    n_parameters = sum(weight.numel() for weight in solver.models.parameters())
    features = [f"{feature['name']} ({feature['dimension']})" for feature in about["features"]]
    versions = [f"{name} {version}" for name, version in about["versions"].items()]
    commit = f" (commit {about['commit'][:10]})" if about["commit"] else ""
    people, sittings = len(splits.subjects), len(splits.prepared)
    n_aside = len(splits.set_aside)
    aside = f" ({n_aside} set aside, see below)" if n_aside else ""
    facts = {
        "Data": f"{_count(people, 'subject')}, {_count(sittings, 'recording')}{aside}",
        "Segments": ", ".join(f"{len(data):,} {name}" for name, data in splits.datasets.items()),
        "Features": ", ".join(features),
        "Parameters": f"{n_parameters:,}",
        "Training": f"{_count(len(solver.history), 'epoch')}, best: {solver.best_epoch + 1}",
        "Precision": solver.training.precision,
    }
    first = {recording.subject_uid: recording for recording in reversed(_simulated(solver))}
    if first:
        rate = config.dset.sample_rate
        correlation = np.mean([recording.signal_correlation(rate) for recording in first.values()])
        facts["Simulated response"] = (
            f"mean |r| with the recording, without artefacts, is {correlation:.3f} at {rate:g} Hz "
            "(mean over sensors and listeners)"
        )
    return [*facts.items(), ("Versions", f"{', '.join(versions)}{commit}")]


def _simulated(solver: Solver) -> list[SyntheticRecording]:
    recordings: list[Recording] = [item.recording for item in solver.splits.prepared]
    return [item for item in recordings if isinstance(item, SyntheticRecording)]


def _studies(solver: Solver) -> list[str]:
    return sorted({item.recording.study for item in solver.splits.prepared})


def _signature(solver: Solver) -> str:
    return solver.folder.name if solver.folder is not None else "(unnamed)"


def _warnings(config: Config) -> list[str]:
    found = [CONTROLS[config.dset.control]] if config.dset.control in CONTROLS else []
    return [*found, RANDOM] if config.test.wer_random else found


def _read_for(path: Path, solver: Solver) -> pd.DataFrame | None:
    """A table of `scripts.controls`; None if there is none, or it is about older weights."""
    if not path.exists():
        return None
    table = pd.read_csv(path)
    if (table["epoch"] != solver.best_epoch).any():
        logger.warning("%s is about other weights, and left out of the report.", path)
        return None
    return table


def _n_recordings(item: tuple[Sequence[str], Sequence[int]]) -> int:
    return len(item[1])


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _too_few(retrieval: Retrieval) -> str:
    return f"too few candidates for a segment accuracy: {retrieval.n_candidates}"


def _tell(evaluation: Evaluation) -> list[str]:
    return [*evaluation.lines(), f"report {evaluation.report}"]
