"""Pictures: of events, sensors and alignments, to check by eye; of results, as in the paper."""

from bm.viz.checks import plot_alignment, plot_events, plot_sensors
from bm.viz.results import (
    plot_ablation,
    plot_accuracies,
    plot_accuracy_by_subjects,
    plot_knowledge,
    plot_lags,
    plot_sensor_map,
    plot_word_course,
)

__all__ = [
    "plot_ablation",
    "plot_accuracies",
    "plot_accuracy_by_subjects",
    "plot_alignment",
    "plot_events",
    "plot_knowledge",
    "plot_lags",
    "plot_sensor_map",
    "plot_sensors",
    "plot_word_course",
]
