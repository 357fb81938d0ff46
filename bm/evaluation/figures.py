"""Figures of the report as inline SVG. Enters: plain arrays. Leaves: text to put into a page.

Texts stay texts, in the page's own font; nothing refers to anything outside the page.
"""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from matplotlib.ticker import MaxNLocator

from bm.core.layout import NO_POSITION

INK, MUTED, GRID = "#1f2933", "#5f6c7b", "#e4e8ed"
ACCENT, SOFT, CHANCE = "#17697f", "#a9cdd6", "#c4622d"
WEIGHTS = LinearSegmentedColormap.from_list("weights", ["#f1f5f7", "#9cc7d2", ACCENT, "#0b3945"])

WIDTH = 4.4
"""Inches of 100 pixels: figures stand side by side on a screen, one below the other on a phone."""
N_NAMED_SUBJECTS = 30
RANK_EDGES = (1, 2, 6, 11, 21, 51, 101, 201, 501, 1001, 2001, 5001, 10_001, 20_001, 50_001)

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bm",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def learning_curves(losses: Mapping[str, Sequence[float]], best_epoch: int | None) -> str:
    """Loss per epoch of each split, and the epoch whose weights are used (counted from 0)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(2.9)
        upper = max(losses, key=lambda split: losses[split][-1])
        for (split, values), colour in zip(losses.items(), (SOFT, ACCENT), strict=False):
            epochs = np.arange(1, len(values) + 1)
            axes.plot(epochs, values, color=colour, marker="o" if len(values) < 3 else None)
            axes.annotate(
                split, (epochs[-1], values[-1]), (6, 0), textcoords="offset points",
                va="bottom" if split == upper else "top",  # they often end at the same place
                color=colour if colour == ACCENT else MUTED,
            )  # fmt: skip
        if best_epoch is not None and "valid" in losses:
            place = best_epoch + 1, losses["valid"][best_epoch]
            axes.plot(*place, "o", color="white", markeredgecolor=ACCENT, markersize=6)
        _epoch_axis(axes, max(map(len, losses.values())))
        axes.set_ylabel("loss")
        axes.margins(y=0.12)
        return _svg(figure, "Loss of each epoch")


def accuracy_curve(
    epochs: Sequence[int], accuracies: Sequence[float], chance: float, k: int, n_epochs: int
) -> str:
    """Top-k accuracy on the test split during training, epochs counted from 0."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(2.9)
        axes.plot(np.array(epochs) + 1, np.array(accuracies) * 100, color=ACCENT, marker=".")
        _chance_line(axes, chance)
        _epoch_axis(axes, n_epochs)
        axes.set_ylim(0, max(100 * max(accuracies), 200 * chance) * 1.08)
        axes.set_ylabel(f"top-{k} accuracy, %")
        return _svg(figure, f"Top-{k} accuracy during training")


def accuracy_by_subject(
    accuracies: Mapping[str, float], overall: float, chance: float, k: int
) -> str:
    """Top-k accuracy of each subject, the overall accuracy and chance; many go without names."""
    named = len(accuracies) <= N_NAMED_SUBJECTS
    items = list(accuracies.items()) if named else sorted(accuracies.items(), key=_second)[::-1]
    pitch = 0.22 if named else max(0.05, 5.4 / len(items))
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(0.8 + pitch * max(len(items), 3))
        places = np.arange(len(items))
        values = np.array([value for _, value in items]) * 100
        axes.hlines(places, 0, values, color=SOFT, linewidth=2 if named else 1)
        axes.plot(
            values, places, "o", color=ACCENT, markersize=5 if named else 3, clip_on=False, zorder=3
        )
        axes.axvline(overall * 100, color=ACCENT, linewidth=1, alpha=0.7)
        axes.axvline(chance * 100, color=CHANCE, linewidth=1.2, linestyle=(0, (4, 3)))
        top = axes.get_xaxis_transform()
        axes.text(
            overall * 100,
            1.01,
            f"all {100 * overall:.1f} %",
            transform=top,
            ha="center",
            color=ACCENT,
        )
        if overall - chance > 0.25 or overall < chance:
            axes.text(
                chance * 100,
                1.01,
                f"chance {100 * chance:.1f} %",
                transform=top,
                ha="left",
                color=CHANCE,
            )
        axes.set_yticks(
            places if named else [], [_short(name) for name, _ in items] if named else []
        )
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(items) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel(f"top-{k} accuracy, %")
        if not named:
            axes.set_ylabel(f"{len(items)} subjects, sorted")
        return _svg(figure, f"Top-{k} accuracy of each subject")


def accuracy_against(
    places: np.ndarray,
    accuracies: np.ndarray,
    chances: np.ndarray,
    k: int,
    label: str,
    log: bool = False,
) -> str:
    """Top-k accuracy, and that of guessing, against anything, such as lag or candidates."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(2.9)
        axes.plot(places, chances * 100, color=CHANCE, linestyle=(0, (4, 3)), lw=1.2)
        axes.plot(places, accuracies * 100, color=ACCENT, marker=".")
        if log:
            axes.set_xscale("log")
            apart = np.append(places[1:] > 1.5 * places[:-1], True)  # labels shouldn't overlap
            axes.set_xticks(places[apart], [f"{place:g}" for place in places[apart]])
            axes.minorticks_off()
        axes.annotate(
            "chance", (places[-1], chances[-1] * 100), (0, 4), textcoords="offset points",
            ha="right", color=CHANCE,
        )  # fmt: skip
        axes.set_ylim(0, max(100 * max(accuracies), 200 * max(chances[-1], 1e-3)) * 1.08)
        axes.set_xlabel(label)
        axes.set_ylabel(f"top-{k} accuracy, %")
        axes.grid(axis="y")
        return _svg(figure, f"Top-{k} accuracy against {label}")


def rank_histogram(ranks: np.ndarray, n_candidates: int) -> str:
    """Share of segments by the rank of the truth, beside what guessing would give."""
    inner = [edge for edge in RANK_EDGES if edge <= n_candidates]
    edges = np.array([*inner, n_candidates + 1])
    counts, _ = np.histogram(np.floor(ranks) + 1, edges)
    expected = np.diff(edges) / n_candidates * 100
    shares = counts / max(len(ranks), 1) * 100
    labels = [
        str(low) if high == low + 1 else f"{low}–{high - 1}"
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(2.9)
        places = np.arange(len(labels))
        colours = [ACCENT if edge <= 10 else SOFT for edge in edges[:-1]]
        axes.bar(places, shares, width=0.78, color=colours)
        axes.hlines(expected, places - 0.39, places + 0.39, color=CHANCE, linewidth=1.6)
        crowded = 0.09 * max(shares.max(), expected.max())
        for place, share, by_chance in zip(places, shares, expected, strict=True):
            height = by_chance if 0 <= by_chance - share < crowded else share
            axes.annotate(
                f"{share:.0f}", (place, height), (0, 3), textcoords="offset points",
                ha="center", color=MUTED, fontsize=8.5,
            )  # fmt: skip
        axes.set_xticks(places, labels, rotation=40, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("rank of the true segment")
        axes.set_ylabel("segments, %")
        axes.set_ylim(0, max(shares.max(), expected.max()) * 1.15)
        axes.grid(axis="y")
        return _svg(figure, "How the true segments rank")


def sensor_map(positions: np.ndarray, weights: np.ndarray, names: Sequence[str]) -> str:
    """How much the spatial attention looks at each sensor, seen from above, nose up.

    Parameters
    ----------
    positions : [C, 2] in 0..1, `NO_POSITION` for a sensor without a place.
    weights : [C] attention summed over virtual channels.
    names : C names; the strongest three go into the description of the figure.
    """
    placed = ~(positions == NO_POSITION).all(axis=1)
    places, values = positions[placed] - 0.5, weights[placed] / weights[placed].mean()
    places *= 0.92 / max(np.linalg.norm(places, axis=1).max(), 1e-6)  # all within the head
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.9))
        axes = figure.add_axes((0.02, 0.02, 0.84, 0.96))
        head: Any = {"facecolor": "#fafbfc", "edgecolor": "#b8c2cc", "linewidth": 1.4, "zorder": 0}
        axes.add_patch(Polygon([[-0.11, 0.98], [0, 1.13], [0.11, 0.98]], **head))
        axes.add_patch(Circle((0, 0), 1, **head))
        size = np.clip(9000 / max(len(places), 1), 20, 150)
        dots = axes.scatter(
            places[:, 0],
            places[:, 1],
            s=size,
            c=values,
            cmap=WEIGHTS,
            vmin=0,
            edgecolors="white",
            linewidths=0.5,
        )
        axes.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.16), aspect="equal")
        axes.axis("off")
        scale = figure.add_axes((0.9, 0.16, 0.028, 0.6))
        bar = figure.colorbar(dots, cax=scale)
        bar.outline.set_visible(False)
        scale.tick_params(length=0)
        scale.set_title("× mean", color=MUTED, fontsize=9, pad=8)
        title = "Attention to sensors"
        strongest = np.argsort(values)[::-1][:3]
        kept = [name for name, here in zip(names, placed, strict=True) if here]
        return _svg(figure, f"{title}; most to {', '.join(kept[place] for place in strongest)}")


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _chance_line(axes: Axes, chance: float) -> None:
    axes.axhline(chance * 100, color=CHANCE, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        f"chance {100 * chance:.1f} %", (1, chance * 100), (0, 3), textcoords="offset points",
        xycoords=axes.get_yaxis_transform(), ha="right", color=CHANCE,
    )  # fmt: skip


def _epoch_axis(axes: Axes, n_epochs: int) -> None:
    axes.set_xlim(0.5, max(n_epochs * 1.12, n_epochs + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.set_xlabel("epoch")
    axes.grid(axis="y")


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def _second(item: tuple[str, float]) -> float:
    return item[1]


def _svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element without any reference to the outside."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("'DejaVu Sans'", "system-ui, sans-serif")
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # every figure of the page would have the same
    view_box = re.search(r'viewBox="[^"]*"', text)
    assert view_box is not None
    width = round(figure.get_figwidth() * 100)
    start = f'<svg role="img" aria-label="{escape(title)}" style="max-width:{width}px"'
    return f"{start} {view_box[0]}>{text[text.index('>') + 1 :]}"
