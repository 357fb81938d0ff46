"""What a trained decoder knows: which features of words predict how probable it finds the truth.

Usage: python -m scripts.knowledge sig=SIG [OPTION=VALUE ...]

  out=FOLDER     where to write (the folder "evaluation" of the experiment)
  model=PATH     model of spaCy with vectors and parts of speech, by name or folder (that of the
                 language, as dset.features_params.WordEmbedding has it)
  n_folds=N      of the cross-validation over sentences (5; at least 3)

Features: phonemes of the word, its frequency, part of speech and embedding, and the phrase (mean
embedding of the words in the window). For each subject a ridge regression predicts from each of
them the probability that the decoder gives to the true segment, on sentences that it wasn't fitted
to (scikit-learn). What a study or this machine has no means for is named, and left out.

Writes knowledge.csv (each subject), knowledge_summary.csv (means, 95 % intervals over subjects,
Wilcoxon tests with Holm's correction) and knowledge.svg. docs/evaluation.md says how to read them.

For example:
  python -m scripts.knowledge sig=557f5f8a n_folds=10

Exit code: 0 if all went well, 1 if the data don't allow it, 2 for a wrong argument.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from bm import play
from bm.build import build_windows
from bm.config import from_dict
from bm.core.cache import write_atomically
from bm.core.messages import DataError
from bm.evaluation import Retrieval
from bm.evaluation.knowledge import (
    N_FOLDS,
    anchors,
    check_folds,
    knowledge,
    mean_in_window,
    phonemes_of_words,
    summarise_knowledge,
)
from bm.features import Feature, make_features
from bm.features.base import EventFeature
from bm.features.text import TAGS
from bm.solver import Solver
from bm.viz import plot_knowledge
from scripts.arguments import UsageError
from scripts.command import command
from scripts.evaluate import FOLDER
from scripts.options import read_own

TABLE, SUMMARY, FIGURE = "knowledge.csv", "knowledge_summary.csv", "knowledge.svg"
WITH_MODEL = ("PartOfSpeech", "WordEmbedding")


@dataclass(frozen=True)
class Options:
    """What the command line asks for (see above)."""

    sig: str = ""
    out: Path | None = None
    model: str | None = None
    n_folds: int = N_FOLDS


@command(__doc__)
def main(arguments: Sequence[str]) -> int:
    """Analyse an experiment; returns the exit code."""
    options = read_own(Options, arguments)
    if not options.sig:
        raise UsageError("Say which experiment is meant: sig=SIG")
    check_folds(options.n_folds)
    try:
        summary = analyse(play.get_solver_from_sig(options.sig), options)
    except ImportError as error:
        raise DataError(str(error)) from error
    print(summary.to_string(index=False, float_format="{:.3g}".format))
    return 0


def analyse(solver: Solver, options: Options) -> pd.DataFrame:
    """Analyse a trained solver, and write tables and figure; returns the summary."""
    retrieval = solver.retrieve()
    features = describe_words(solver, retrieval, options.model)
    table = knowledge(retrieval, features, solver.splits.subjects, options.n_folds)
    summary = summarise_knowledge(table)
    out = options.out or (solver.folder or Path()) / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / TABLE, partial(table.to_csv, index=False))
    write_atomically(out / SUMMARY, partial(summary.to_csv, index=False))
    write_atomically(out / FIGURE, partial(plot_knowledge(table).savefig, format="svg"))
    return summary


def describe_words(
    solver: Solver, retrieval: Retrieval, model: str | None
) -> dict[str, np.ndarray]:
    """[V, D] each feature of the candidates' words that can be found.

    Raises
    ------
    DataError : none can.
    """
    config = from_dict(solver.about["config"])
    window = build_windows(config.dset)["test"]
    tmax = window.tmax - solver.training.delay
    events = [item.events for item in solver.splits.prepared]
    candidates = retrieval.candidates
    words = anchors(candidates, events)
    found: dict[str, np.ndarray] = {}
    phonemes = phonemes_of_words(candidates, words, events)
    if phonemes is None:
        _leave_out("phonemes", "not all words of this study come with their phonemes")
    else:
        found["phonemes"] = phonemes
    heard = pd.concat(events, ignore_index=True)
    heard = heard[heard["kind"] == "word"].drop_duplicates("word")
    for name in ("WordFrequency", *WITH_MODEL):
        params = dict(config.dset.features_params.get(name, {}))
        if model is not None and name in WITH_MODEL:
            params["model"] = model
        (feature,) = make_features([name], {name: params})
        try:
            if name == "PartOfSpeech":
                tags = _values(feature, words)[:, 0].astype(int)
                found["part of speech"] = np.eye(len(TAGS) + 1)[tags]
            elif name == "WordFrequency":
                found["word frequency"] = _values(feature, words)
            else:
                vectors = dict(zip(heard["word"].astype(str), _values(feature, heard), strict=True))
                found["word embedding"] = np.stack([vectors[word] for word in words["word"]])
                found["phrase embedding"] = mean_in_window(
                    candidates, events, vectors, window.tmin, tmax
                )
        except (ImportError, ValueError) as error:
            _leave_out(name, str(error))
    if not found:
        raise DataError("No feature of the words can be found: see the warnings above.")
    return found


def _values(feature: Feature, words: pd.DataFrame) -> np.ndarray:
    assert isinstance(feature, EventFeature)
    return feature.values(words)


def _leave_out(name: str, reason: str) -> None:
    logging.getLogger(__name__).warning("%s left out: %s", name, reason)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
