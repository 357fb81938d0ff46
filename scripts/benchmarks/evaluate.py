"""Evaluation: scores, the word monitor, and the memory of a whole retrieval.

Options:
  n_queries=2000  n_candidates=1400
  feature=wav2vec   targets of 1024 columns, or mel: of 120
  n_sensors=208  n_subjects=27
  precisions=[fp32,bf16]
  n_estimates=480   estimates are those of so many queries, over and over
  n_monitored=8     queries that the reference of the word monitor takes in each repeat
  memory=true       also the peak memory of a retrieval with the paper's encoder: takes minutes
  device=cpu
  n_threads=0       of torch; 0: all cores
  repeats=5

Rows of unit "GFLOP/s" hold scores, of estimates that are there already, against the product of two
matrices in the same run ("roof"), and those of further precisions against those of the first; rows
of unit "queries/s" the word monitor against one that takes query by query. bm's monitor gathers its
candidates each time, the reference is given them. Rows of unit "GiB" hold what a fresh process
takes above model, data and candidates while all queries pass through the encoder.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bm.core.machine import keep_freed_memory, n_cores
from bm.evaluation.candidates import SCORED_AT_ONCE, Candidates, SegmentFeatures
from bm.evaluation.retrieval import retrieve
from bm.evaluation.words import word_accuracy
from bm.losses import EPSILON
from bm.scaling import BatchScaler
from bm.segments.batch import SegmentBatch, align_to_delay
from bm.segments.dataset import SegmentDataset
from bm.segments.loader import SegmentLoader
from bm.training import EVALUATED_AT_ONCE
from scripts.benchmarks.parts import memory
from scripts.benchmarks.parts.made import (
    DELAY,
    PAPER_HOURS,
    PAPER_RECORDINGS,
    RATE,
    gatherer,
    layout,
    make,
)
from scripts.benchmarks.parts.measure import Row, in_turn, rows_of, seconds
from scripts.benchmarks.parts.plain import paper_model
from scripts.benchmarks.step import DTYPES, roof_case

VOCABULARY = 745
TOP = 10
PLAIN = "plain"


@dataclass(frozen=True)
class Settings:
    """See above."""

    n_queries: int = 2000
    n_candidates: int = 1400
    feature: str = "wav2vec"
    n_sensors: int = 208
    n_subjects: int = 27
    precisions: list[str] = field(default_factory=lambda: ["fp32", "bf16"])
    n_estimates: int = SCORED_AT_ONCE
    n_monitored: int = 8
    memory: bool = True
    device: str = "cpu"
    n_threads: int = 0
    repeats: int = 5


class Evaluated:
    """The test split of a study, and an encoder.

    Parameters
    ----------
    settings : of the bench.
    precision : of the encoder.
    """

    def __init__(self, settings: Settings, precision: str = "fp32"):
        self.device, self.is_half = settings.device, precision == "bf16"
        self.dataset = make_split(settings)
        self.scaler = BatchScaler().fit(self.dataset, 2, seed=0)
        self.layouts = layout(settings.n_sensors).to(self.device)
        model = paper_model(settings.n_sensors, self.dataset.n_features, settings.n_subjects)
        self.model = model.to(self.device).eval()

    @torch.no_grad()
    def estimate(self, batch: SegmentBatch) -> SegmentFeatures:
        """Estimates of a batch."""
        batch = self.scaler(batch.to(self.device))
        meg, _ = align_to_delay(batch.meg, batch.features, DELAY, RATE)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.is_half):
            estimate = self.model(meg, batch.subject_index, self.layouts, batch.layout_index)
        return SegmentFeatures(estimate.float(), batch.row)

    def target(self, batch: SegmentBatch) -> SegmentFeatures:
        """Targets alone."""
        batch = self.scaler(batch.to(self.device))
        _, target = align_to_delay(batch.meg, batch.features, DELAY, RATE)
        return SegmentFeatures(target, batch.row)


class Estimated:
    """Queries of which the estimates are there already: noise.

    Parameters
    ----------
    dataset : the split.
    like : [1, F, T] what estimates look like.
    n_estimates : so many, over and over.
    """

    def __init__(self, dataset: SegmentDataset, like: Tensor, n_estimates: int):
        n_at_once = min(EVALUATED_AT_ONCE, n_estimates)
        n_estimates -= n_estimates % n_at_once
        self.estimates = torch.randn(n_estimates, *like.shape[1:], device=like.device)
        nothing = torch.empty(len(dataset), 0, 0, device=like.device)
        row = torch.arange(len(dataset), device=like.device)
        whole = SegmentBatch(nothing, nothing, nothing, row, row, row, row)
        self.batches = [whole.select(part) for part in row.split(n_at_once)]

    def estimate(self, batch: SegmentBatch) -> SegmentFeatures:
        """Estimates of a batch; they begin anew where they end."""
        first = int(batch.row[0]) % len(self.estimates)
        return SegmentFeatures(self.estimates[first : first + len(batch)], batch.row)


def run(settings: Settings) -> list[Row]:
    """Measure scores, the word monitor, and memory."""
    torch.set_num_threads(settings.n_threads or n_cores())
    keep_freed_memory()
    evaluated = Evaluated(settings)
    like = evaluated.target(evaluated.dataset.gather(torch.tensor([0]))).values
    queries = Estimated(evaluated.dataset, like, settings.n_estimates)
    rows = scoring(evaluated, queries, settings) + monitoring(evaluated, queries, settings)
    del evaluated, queries
    if settings.memory:
        for precision in settings.precisions:
            gigabytes = memory.in_fresh_process(taken, precision, settings) / memory.GIB
            rows += rows_of("evaluate", "GiB", {f"memory, {precision}": [gigabytes]})
    return rows


def make_split(settings: Settings) -> SegmentDataset:
    """Unique segments heard by one listener, and by another as often as there are queries left."""
    hours = 2 * PAPER_HOURS / PAPER_RECORDINGS
    made = make(hours, settings.n_sensors, settings.n_subjects, settings.feature)
    segments = gatherer(made)
    place = np.arange(settings.n_queries) % settings.n_candidates
    recording = np.arange(settings.n_queries) // settings.n_candidates
    table = pd.DataFrame(
        {
            "recording": recording % 2,
            "subject": recording % 2,
            "layout": 0,
            "first": np.linspace(0, made.n_samples - segments.n_times - 1, settings.n_candidates)
            .astype(int)[place],
            "word_sequence": "story",
            "word_index": place,
            "word": [f"word {index % VOCABULARY}" for index in place],
        }
    )  # fmt: skip
    return SegmentDataset(
        table, segments.store, segments.stimuli, segments.n_times, segments.n_baseline
    )


def scoring(evaluated: Evaluated, queries: Estimated, settings: Settings) -> list[Row]:
    """Scores beside the product of two matrices."""
    unique = np.arange(settings.n_candidates)
    roofs, scores = {}, {}
    for precision in settings.precisions:
        dtype = DTYPES[precision]
        candidates = Candidates(evaluated.dataset, unique, evaluated.target, dtype=dtype)
        roofs[f"roof, {precision}"] = roof_case(precision, settings.device)
        scores[f"scores, {precision}"] = score(candidates, queries, settings.device)
    figures = in_turn({**roofs, **scores}, settings.repeats)
    rows = []
    for roof, case in zip(roofs, scores, strict=True):
        rows += rows_of("evaluate", "GFLOP/s", {one: figures[one] for one in (roof, case)}, roof)
    first, *others = scores
    for case in others:
        beside = {first: figures[first], f"{case}, beside {first}": figures[case]}
        rows += rows_of("evaluate", "GFLOP/s", beside, first)[1:]
    return rows


def score(candidates: Candidates, queries: Estimated, device: str) -> Callable[[], float]:
    """GFLOP/s of the scores of all estimates, which come in batches as from an encoder."""
    n_batches = len(queries.estimates) // len(queries.batches[0])

    def ask() -> None:
        for _ in candidates.scores(queries.batches[:n_batches], queries.estimate):
            pass

    return lambda: 2e-9 * queries.estimates.numel() * len(candidates) / seconds(ask, device)


def monitoring(evaluated: Evaluated, queries: Estimated, settings: Settings) -> list[Row]:
    """Word monitors: one that takes query by query, and bm's."""
    reference = f"words, {PLAIN}"
    cases = {reference: plain_monitor(evaluated, queries, settings)}
    for precision in settings.precisions:
        cases[f"words, {precision}"] = monitor(evaluated, queries, DTYPES[precision], settings)
    return rows_of("evaluate", "queries/s", in_turn(cases, settings.repeats), reference)


def monitor(
    evaluated: Evaluated, queries: Estimated, dtype: torch.dtype, settings: Settings
) -> Callable[[], float]:
    """Queries per second of bm's word monitor."""

    def ask() -> None:
        word_accuracy(
            evaluated.dataset, queries.batches, queries.estimate, evaluated.target, TOP, dtype=dtype
        )

    return lambda: settings.n_queries / seconds(ask, settings.device)


def plain_monitor(
    evaluated: Evaluated, queries: Estimated, settings: Settings
) -> Callable[[], float]:
    """Queries per second, one at a time: scores, their order, and the words of the best."""
    dataset = evaluated.dataset
    words = dataset.table["word"].to_numpy()
    candidates = targets(evaluated, settings)
    asked = min(settings.n_monitored, settings.n_estimates)

    def ask() -> None:
        hits = 0
        for row in range(asked):
            scores = torch.einsum("ft,vft->v", queries.estimates[row], candidates)
            scores /= candidates.flatten(1).norm(dim=1) + EPSILON
            best = scores.argsort(descending=True)[:TOP].cpu().numpy()
            hits += bool((words[best] == words[row]).any())

    return lambda: asked / seconds(ask, settings.device)


def targets(evaluated: Evaluated, settings: Settings) -> Tensor:
    """All candidates [V, F, T]."""
    parts = torch.arange(settings.n_candidates).split(EVALUATED_AT_ONCE)
    return torch.cat([evaluated.target(evaluated.dataset.gather(part)).values for part in parts])


def taken(precision: str, settings: Settings) -> int:
    """Bytes that a retrieval takes above model, data and candidates; for a process of its own."""
    torch.set_num_threads(settings.n_threads or n_cores())
    evaluated = Evaluated(settings, precision)
    dataset, dtype = evaluated.dataset, DTYPES[precision]
    target = evaluated.target(dataset.gather(torch.tensor([0]))).values
    queries = SegmentLoader(dataset.without_features(), EVALUATED_AT_ONCE, settings.device)
    before = memory.used()
    keep_freed_memory()  # not earlier: what was freed before would be there to be used
    memory.forget_peak()
    retrieve(dataset, queries.in_order(), evaluated.estimate, evaluated.target, dtype=dtype)
    of_candidates = settings.n_candidates * target.numel() * dtype.itemsize
    return memory.peak() - before - of_candidates
