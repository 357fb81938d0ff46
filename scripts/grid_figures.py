"""Figures of a grid, and of its best experiment.

Enters: tables of `scripts.grid_tables`; a trained solver. Leaves: matplotlib figures (`bm.viz`).
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bm import play
from bm.core.messages import DataError
from bm.encoding import EncodingSolver
from bm.evaluation.course import word_course
from bm.evaluation.tables import EVERYONE
from bm.published.results import STUDIES
from bm.solver import Solver
from bm.viz import (
    plot_ablation,
    plot_accuracies,
    plot_accuracy_by_subjects,
    plot_knowledge,
    plot_sensor_map,
    plot_word_course,
)
from scripts.evaluate import FOLDER, sensor_maps
from scripts.grid_results import GridResults
from scripts.grid_tables import ALL
from scripts.knowledge import TABLE as KNOWLEDGE
from scripts.other_tables import N_SUBJECTS


def draw_accuracies(table: pd.DataFrame) -> Figure:
    """Accuracy per study and row, with chance and the paper's figures.

    Parameters
    ----------
    table : of `summarise` and `with_paper`.
    """
    known = [*STUDIES, *dict.fromkeys(table["study"])]
    table = table.sort_values("study", kind="stable", key=lambda names: names.map(known.index))
    shares = table[["mean", "deviation", "chance", "paper"]].astype(float) / 100
    return plot_accuracies(
        shares.rename(columns={"mean": "accuracy"}).assign(
            study=table["study"].replace(STUDIES), method=table["row"]
        )
    )


def draw_ablation(table: pd.DataFrame) -> Figure:
    """Change by each row, in each study and on average, beside the paper's mean change.

    Parameters
    ----------
    table : of `differences` and `with_paper`.

    Raises
    ------
    ValueError : no row was tested together with its reference.
    """
    means = table[table["study"] == ALL].set_index("row")["paper"]
    known = table[(table["study"] != ALL) & table["difference"].notna()]
    return plot_ablation(
        pd.DataFrame(
            {
                "variant": known["row"],
                "study": known["study"].replace(STUDIES),
                "difference": known["difference"] / 100,
                "paper": known["row"].map(means) / 100,
            }
        )
    )


def draw_subjects(table: pd.DataFrame) -> Figure:
    """Accuracy against the number of subjects trained on.

    Parameters
    ----------
    table : of `subject_table`; rows without a number ("None") are left out.

    Raises
    ------
    ValueError : nothing was tested.
    """
    numbers = pd.to_numeric(table[N_SUBJECTS], errors="coerce")
    known = table.assign(n_subjects=numbers).dropna(subset=["n_subjects", "mean"])
    return plot_accuracy_by_subjects(
        pd.DataFrame(
            {
                "n_subjects": known["n_subjects"],
                "accuracy": known["mean"] / 100,
                "chance": known["chance"] / 100,
                "study": known["study"].replace(STUDIES),
            }
        )
    )


def best_solver(results: GridResults, k: int = 10) -> Solver:
    """Solver of the experiment with the highest top-k accuracy.

    Raises
    ------
    DataError : none was tested yet.
    """
    accuracies = results.accuracies
    tested = accuracies[(accuracies["k"] == k) & (accuracies["subject"] == EVERYONE)]
    if not len(tested):
        raise DataError(f"No experiment of {results.name} has been tested yet.")
    best = tested.sort_values("accuracy", kind="stable")["sig"].iloc[-1]
    return play.get_solver_from_sig(str(best))


def draw_attention(solver: Solver) -> list[Figure]:
    """Attention to sensors, a map for each set of them."""
    return [
        plot_sensor_map(one.positions, one.weights / one.weights.mean(), one.title, "× mean")
        for one in sensor_maps(solver)
    ]


def draw_encoding(solver: Solver) -> Figure:
    """Correlation of each sensor's predicted and true signal.

    Raises
    ------
    DataError : the experiment decodes.
    """
    if not isinstance(solver, EncodingSolver):
        raise DataError(
            "The experiment decodes: a map of predicted sensors needs task.type=encode."
        )
    found = solver.sensor_map()
    return plot_sensor_map(found.positions, found.weights, found.title, "correlation")


def draw_knowledge(solver: Solver) -> Figure | None:
    """What `scripts.knowledge` found about an experiment; None if it wasn't asked yet."""
    path = (solver.folder or Path()) / FOLDER / KNOWLEDGE
    return plot_knowledge(pd.read_csv(path)) if path.exists() else None


def draw_sentence(solver: Solver, sentence: str | None = None, recording: int = 0) -> Figure:
    """Probability of each word while a sentence goes by.

    Parameters
    ----------
    solver : trained.
    sentence : of the test split; None: that with most words.
    recording : index of who heard it.

    Raises
    ------
    DataError : it isn't in the test split, or there are no sentences.
    """
    test = solver.splits.datasets["test"]
    if sentence is None:
        own = test.table[test.table["recording"] == recording]
        if "word_sequence" not in own or not own["word_sequence"].notna().any():
            raise DataError(f"Recording {recording} has no sentences in the test split.")
        sentence = str(own["word_sequence"].value_counts().idxmax())
    with solver.best():
        course = word_course(
            test, solver.estimate, solver.target, solver.training.sample_rate, recording, sentence,
            similarity=solver.objective.similarity, batch_size=solver.training.n_evaluated,
        )  # fmt: skip
    return plot_word_course(course)
