"""Pictures for checks by eye: events, sensors, and how events fit the signal.

Enters: event tables, sensors, alignments. Leaves: matplotlib figures, which belong to whoever asked
(`figure.savefig(path)`; a notebook shows them by itself). Importing this module gives every event
table ``events.event.plot()``.
"""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bm.core.layout import NO_POSITION
from bm.evaluation.alignment import EARLIEST, LATEST, Alignment
from bm.evaluation.figures import ACCENT, CHANCE, INK, MUTED, SOFT, STYLE
from bm.evaluation.lags import LagProfile
from bm.recordings import Sensors
from bm.recordings.sensors import listed

LABELS = {"word": "word", "phoneme": "phoneme", "sound": "filepath", "block": "uid"}
"""Column that says what an event of a kind is."""
ORDER = ("sound", "block", "word", "phoneme")
BOX = 0.7
N_LABELLED = 60
SHORT = 1.5
"""Seconds: labels of shorter events stand upright, or they would run into each other."""
SECONDS_PER_INCH = 1.2
WIDEST = 16.0


def plot_events(
    events: pd.DataFrame, start: float | None = None, stop: float | None = None
) -> Figure:
    """Draw a row of boxes for each kind of event; a few of a kind get their labels.

    Parameters
    ----------
    events : table with ``kind``, ``start`` and ``duration``.
    start, stop : seconds between which to look; None: from the first event, to the last.

    Raises
    ------
    ValueError : no event lies between them.
    """
    begins = events["start"].to_numpy(float)
    ends = begins + np.where(np.isfinite(events["duration"]), events["duration"], 0.0)
    start = begins.min(initial=np.inf) if start is None else start
    stop = ends.max(initial=-np.inf) if stop is None else stop
    shown = events[(begins < stop) & (ends >= start)]
    if not len(shown):
        raise ValueError(f"There is no event between {start:g} and {stop:g} s to plot.")
    present = dict.fromkeys(shown["kind"])
    kinds = [kind for kind in ORDER if kind in present]
    kinds += [kind for kind in present if kind not in kinds]
    with matplotlib.rc_context(STYLE):
        width = float(np.clip((stop - start) / SECONDS_PER_INCH, 6.0, WIDEST))
        figure = Figure(figsize=(width, 0.8 + 0.75 * len(kinds)), layout="constrained")
        axes = figure.add_subplot()
        for row, kind in enumerate(kinds):
            _draw_kind(axes, row, shown[shown["kind"] == kind], start, stop)
        axes.set_yticks(range(len(kinds)), kinds)
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(start, stop), ylim=(len(kinds) - 0.5, -0.5), xlabel="seconds")
    return figure


@pd.api.extensions.register_dataframe_accessor("event")
class EventAccessor:
    """What can be done with an event table: ``events.event.plot()``."""

    def __init__(self, events: pd.DataFrame):
        for column in ("kind", "start", "duration"):
            if column not in events:
                raise AttributeError(f"This table has no events: there is no column {column!r}.")
        self._events = events

    def plot(self, start: float | None = None, stop: float | None = None) -> Figure:
        """Draw the events between two moments (see `plot_events`)."""
        return plot_events(self._events, start, stop)


def plot_sensors(sensors: Sensors, all_sensors: Sensors | None = None) -> Figure:
    """Draw the layout seen from above, nose up; masked sensors are crossed out.

    Parameters
    ----------
    sensors : of a preprocessed signal: those that attention leaves out have no position.
    all_sensors : the same before any was masked (`Sensors.from_info(raw.info, name)`): then
        crosses stand at the places of masked ones, else only their names are given.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.0, 5.4), layout="constrained")
        _draw_sensors(figure.add_subplot(), sensors, all_sensors)
    return figure


def plot_alignment(alignment: Alignment) -> Figure:
    """Draw the lags that `check_alignment` found, and the sensors, on one page."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 7.0), layout="constrained")
        response, word, words, layout = figure.subplots(2, 2).flat
        _draw_lags(response, alignment.judged, f"response to the {alignment.stimulus}")
        response.axvspan(1000 * EARLIEST, 1000 * LATEST, color=SOFT, alpha=0.25, linewidth=0)
        _draw_evoked(word, alignment)
        copy = alignment.sound_copy
        if copy is not None:
            _draw_lags(words, copy.profile, f"sound in channel {copy.channel}")
        elif alignment.words_in_sound is not None:
            _draw_lags(words, alignment.words_in_sound, "loudness of the sound after words")
        else:
            words.axis("off")
        _draw_sensors(layout, alignment.sensors, None)
        title = f"{alignment.study}/{alignment.recording}: {alignment.verdict}"
        reasons = "".join(f"\n{fault}" for fault in alignment.faults)
        figure.suptitle(title + reasons, color=CHANCE if alignment.faults else INK, fontsize=10)
    return figure


def _draw_kind(axes: Axes, row: int, events: pd.DataFrame, start: float, stop: float) -> None:
    """One row of boxes; an event without an end is drawn up to the border."""
    begins = events["start"].to_numpy(float)
    widths = np.minimum(events["duration"].to_numpy(float), stop - begins)
    bars: Any = np.stack([begins, widths], axis=1)
    colours = [SOFT if index % 2 else ACCENT for index in range(len(events))]
    axes.broken_barh(bars, (row - BOX / 2, BOX), facecolors=colours, alpha=0.6)
    axes.vlines(begins, row - BOX / 2, row + BOX / 2, color=ACCENT, linewidth=0.6)
    column = LABELS.get(str(events["kind"].iloc[0]), "")
    if column not in events or len(events) > N_LABELLED:
        return
    for begin, label in zip(begins, events[column], strict=True):
        text = str(label).replace("\\", "/").rsplit("/", 1)[-1]
        axes.text(
            max(begin, start), row, f" {text}", rotation=90 if np.median(widths) < SHORT else 0,
            va="center", fontsize=7.5, color=INK, clip_on=True,
        )  # fmt: skip


def _draw_sensors(axes: Axes, sensors: Sensors, all_sensors: Sensors | None) -> None:
    if all_sensors is not None and all_sensors.names != sensors.names:
        raise ValueError("all_sensors are not those of the signal: their names differ.")
    places = sensors.positions
    used = ~(places == NO_POSITION).all(axis=1)
    size = float(np.clip(6000 / len(used), 12, 90))
    axes.scatter(places[used, 0], places[used, 1], s=size, color=ACCENT, alpha=0.75)
    masked = [name for name, is_used in zip(sensors.names, used, strict=True) if not is_used]
    if all_sensors is not None:
        known = ~used & ~(all_sensors.positions == NO_POSITION).all(axis=1)
        for index in np.flatnonzero(known):
            place = all_sensors.positions[index]
            axes.plot(*place, "x", color=CHANCE)
            axes.annotate(
                sensors.names[index], place, (5, 5), textcoords="offset points", fontsize=7.5
            )
    axes.annotate("nose", (0.5, 1.1), ha="center", color=MUTED)
    axes.set(xlim=(-0.08, 1.08), ylim=(-0.08, 1.16), aspect="equal")
    axes.axis("off")
    text = f"{used.sum()} of {len(used)} sensors"
    axes.set_title(f"{text}; masked: {listed(masked)}" if masked else text, fontsize=9, color=MUTED)


def _draw_lags(axes: Axes, profile: LagProfile, title: str) -> None:
    """Profile, with the height that the highest of as many lags usually has by chance."""
    axes.plot(1000 * profile.lags, profile.values, color=ACCENT)
    axes.axhline(profile.chance, color=CHANCE, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.axvline(1000 * profile.peak, color=INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="lag, ms", ylabel="variance explained", ylim=(0, None))
    axes.margins(x=0)
    axes.set_title(f"{title}: {1000 * profile.peak:.0f} ms, p={profile.p:.1g}", fontsize=9)


def _draw_evoked(axes: Axes, alignment: Alignment) -> None:
    times, courses = alignment.evoked
    axes.plot(1000 * times, courses.T, color=SOFT, linewidth=0.6)
    axes.plot(1000 * times, np.sqrt((courses**2).mean(axis=0)), color=ACCENT)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set(xlabel="ms after a word's onset", ylabel="interquartile ranges")
    axes.margins(x=0)
    axes.set_title(f"average of {alignment.n_words:,} words, and its power", fontsize=9)
