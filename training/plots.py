"""The two pictures of a run.

L layers, T steps of an episode, N observations.
"""

from __future__ import annotations

import textwrap
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from .curriculum import STAGE
from .evaluation import CUE, DECISION, KINDS, OTHER, EpisodeRecord, Evaluation
from .metrics_csv import STEPS, Row

COLOUR_OF_KIND = {CUE: "#d1495b", DECISION: "#edae49", OTHER: "#66788a"}
FEW_CUES = 5
"""Cues of an episode that are drawn thick; more of them would hide the rest."""
INK, FAINT = "#30424f", "#d5dbe0"

_SMALL: dict[str, Any] = {
    "textcoords": "offset points",
    "ha": "center",
    "fontsize": 8,
    "color": INK,
    "annotation_clip": False,
}


def learning_curve(rows: list[Row], title: str) -> Figure:
    """Success (return, where no success is reported) and live memories against steps. Dotted lines
    mark where a curriculum went on to its next stage."""
    success = any("rollout/success_rate" in row for row in rows)
    upper = "rollout/success_rate" if success else "rollout/ep_rew_mean"
    prefix = "memory/live_mean_layer"
    layers = sorted(
        {key for row in rows for key in row if key.startswith(prefix)},
        key=lambda key: int(key.removeprefix(prefix)),
    )
    figure, axes = _figure(2 if layers else 1, height=5.6 if layers else 3.2)
    _draw(axes[0], rows, upper, "#00798c")
    axes[0].set_ylabel("success rate" if success else "mean return")
    if success:
        axes[0].set_ylim(-0.02, 1.02)
    for layer, key in enumerate(layers):
        colour = colormaps["viridis"](0.15 + 0.65 * layer / max(1, len(layers) - 1))
        dashes = "-" if layer == 0 else (0, (4, 2 * layer))  # equal layers stay visible
        _draw(axes[1], rows, key, colour, f"layer {layer}", dashes)
    if layers:
        axes[1].set_ylabel("live memories")
        axes[1].set_ylim(bottom=0)
        axes[1].legend(frameon=False)
    _mark_stages(axes, rows)
    axes[-1].set_xlabel("environment steps")
    axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    # above the numbers of stages
    axes[0].set_title(textwrap.fill(title, 75), loc="left", color=INK, pad=16)
    return figure


def _mark_stages(axes: list[Axes], rows: list[Row]) -> None:
    """Dotted lines; the numbers of the stages stand above the panels, clear of the curves."""
    staged = [row for row in rows if STAGE in row]
    changes = [(b[STEPS], a[STAGE]) for b, a in pairwise(staged) if a[STAGE] != b[STAGE]]
    for steps, stage in changes:
        for axis in axes:
            axis.axvline(steps, color=INK, ls=":", lw=1)
        above = axes[0].get_xaxis_transform()
        axes[0].annotate(f"{stage:g}", (steps, 1), (0, 2), xycoords=above, va="bottom", **_SMALL)
    if changes:
        axes[0].annotate("stage", (0, 1), (-14, 2), xycoords="axes fraction", va="bottom", **_SMALL)


def _draw(
    axis: Axes, rows: list[Row], key: str, colour: Any, label: str | None = None, dashes: Any = "-"
) -> None:
    points = {row[STEPS]: row[key] for row in rows if key in row}  # the last line of a step
    marker = "o" if len(points) < 3 else None
    x, y = list(points), list(points.values())
    axis.plot(x, y, color=colour, label=label, ls=dashes, lw=1.6, marker=marker)


def retention(evaluation: Evaluation, title: str) -> Figure:
    """Left: spans by kind of observation. Right: one episode, which memories were live when.

    A memory without separate memories (lstm) gets a picture that says so.
    """
    if evaluation.episode is None:
        figure, (axis,) = _figure(1, height=2.0)
        text = "This memory holds no separate memories:\nthere are no spans and lifetimes to show."
        axis.text(0.5, 0.5, text, ha="center", va="center", color=INK)
        axis.axis("off")
        axis.set_title(textwrap.fill(title, 75), loc="left", color=INK)
        return figure
    layers = len(evaluation.episode.last_live_LT)
    figure = Figure(figsize=(10.5, max(4.2, 2.5 * layers)), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(2, 3))
    left, right = parts
    spans_axis = left.subplots()
    _tidy(spans_axis)
    _draw_spans(spans_axis, evaluation.spans or {})
    episode_axes = right.subplots(layers, 1, sharex=True, squeeze=False)[:, 0]
    for layer, axis in enumerate(episode_axes):
        _tidy(axis)
        _draw_lives(axis, evaluation.episode, layer)
    episode_axes[0].set_title(_describe(evaluation.episode), loc="left", color=INK, fontsize=10)
    episode_axes[-1].set_xlabel("step of the episode")
    figure.suptitle(textwrap.fill(title, 105), color=INK, x=0.01, ha="left")
    return figure


def _draw_spans(axis: Axes, spans: dict[str, NDArray[np.float32]]) -> None:
    """A box per kind and layer: quartiles, median, and whiskers over 90 % of the observations."""
    kinds = [kind for kind in range(len(KINDS)) if KINDS[kind] in spans]
    layers = next(iter(spans.values())).shape[1] if spans else 0
    width = 0.8 / max(1, layers)
    for place, kind in enumerate(kinds):
        for layer in range(layers):
            x = place + (layer - (layers - 1) / 2) * width
            _draw_box(axis, x, 0.8 * width, spans[KINDS[kind]][:, layer], COLOUR_OF_KIND[kind])
            axis.annotate(f"L{layer}", (x, 0), (0, -4), va="top", **_SMALL)
    longest = max((float(span_NL.max()) for span_NL in spans.values()), default=1.0)
    axis.set_yscale("symlog", linthresh=1)  # logarithmic above 1; spans may be 0
    axis.set_ylim(0, 2.5 * max(1.0, longest))
    axis.yaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_xticks(range(len(kinds)), [KINDS[kind] for kind in kinds])
    axis.tick_params(axis="x", length=0, pad=14)
    axis.set_xlim(-0.6, len(kinds) - 0.4)
    axis.set_ylabel("predicted span, steps")
    title = "spans by kind and layer; medians as numbers"
    axis.set_title(title, loc="left", color=INK, fontsize=10)


def _draw_box(axis: Axes, x: float, width: float, span_N: NDArray[np.float32], colour: str) -> None:
    line = {"color": colour, "lw": 1.5}
    axis.boxplot(
        span_N,
        positions=[x],
        widths=width,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": colour, "alpha": 0.55, "edgecolor": colour},
        whiskerprops=line,
        capprops=line,
        medianprops={"color": INK, "lw": 2},
    )
    median = float(np.median(span_N))
    number = axis.annotate(_short(median), (x, median), (0, 2), va="bottom", **_SMALL)
    number.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    number.set_zorder(5)  # above whiskers


def _short(steps: float) -> str:
    """Three digits or more: 0.335, 24.6, 1,009."""
    return f"{steps:,.0f}" if steps >= 1000 else f"{steps:.3g}"


def _draw_lives(axis: Axes, episode: EpisodeRecord, layer: int) -> None:
    """A line per memory, from its birth to the last step at which it was live."""
    end = len(episode.kind_T)
    births = np.arange(end)
    thin = float(np.clip(150 / end, 0.4, 1.2))  # in points: lines of two steps do not overlap
    for kind in (OTHER, DECISION, CUE):  # cues on top
        of_kind = births[episode.kind_T == kind]
        if not len(of_kind):
            continue
        ends = episode.last_live_LT[layer, of_kind] + 1
        lines = [((b, b), (e, b)) for b, e in zip(of_kind, ends, strict=True)]
        wide = 3.0 if kind == CUE and len(of_kind) <= FEW_CUES else thin
        axis.add_collection(
            LineCollection(lines, colors=COLOUR_OF_KIND[kind], lw=wide, label=KINDS[kind])
        )
    edges = np.flatnonzero(np.diff(episode.kind_T == DECISION, prepend=False, append=False))
    for first, after in edges.reshape(-1, 2):
        axis.axvspan(first, after, color=COLOUR_OF_KIND[DECISION], alpha=0.25, lw=1, zorder=0)
    axis.set_xlim(-0.02 * end, 1.02 * end)
    axis.set_ylim(-0.05 * end, 1.03 * end)
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axis.set_ylabel(f"layer {layer}\nborn at step")
    if layer == 0:
        legend = axis.legend(loc="upper left", fontsize=9, framealpha=1, edgecolor="white")
        for handle in legend.legend_handles:
            handle.set_linewidth(2.5)  # type: ignore[union-attr]


def _describe(episode: EpisodeRecord) -> str:
    outcome = {True: ", success", False: ", failure", None: f", return {episode.reward:.3g}"}
    steps = len(episode.kind_T)
    return f"memories live in one episode ({steps} steps{outcome[episode.success]})"


def _figure(rows: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    for axis in axes:
        _tidy(axis)
    return figure, axes


def _tidy(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color=FAINT, lw=0.6)
    axis.set_axisbelow(True)
