# Copyright 2026 The nemo_distill Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The picture of a report: quality against size."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nemo_distill.support.quoting import plot_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# colours and markers that stay apart for the colour-blind and in print
SERIES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
)
_LABEL_HEIGHT = 11.0  # points between two labels, one above the other
_LABEL_GAP = 9.0  # points between a marker and its label
_ROUNDS = 4  # of making room for names
_MOST_NAMED, _MOST_POINTS = 60, 600  # of more, nobody could read the names, and to place them would take long


@dataclass
class Point:
    """One model on one test set."""

    label: str
    cost: float
    """Parameters, or milliseconds."""
    bleu: float
    deviation: float | None
    """Sample standard deviation over seeds; None for a single one."""


def plot_quality_against_size(series: Mapping[str, Sequence[Point]]) -> bytes:
    """Draw BLEU against the number of parameters (logarithmic), one series per test set; return the PNG.

    Models are named beside their highest point, where they are no more than 60; a bar shows the standard deviation
    where there are several seeds.

    Args:
        series: the points of each test set, by its name; at least one point in all.

    Example:
        >>> png = plot_quality_against_size({"wmt20": [Point("student", 95_000_000, 34.6, None)]})  # doctest: +SKIP
    """
    from matplotlib import rc_context, rcParamsDefault
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(rcParamsDefault):  # nobody's settings, nor a session's
        figure = Figure(figsize=(7.5, 5.0), layout="constrained")
        FigureCanvasAgg(figure)
        draw_quality(figure, series)
        stream = io.BytesIO()
        figure.savefig(stream, dpi=160, format="png")
    return stream.getvalue()


class CostAxis(NamedTuple):
    """What quality is drawn against."""

    title: str
    label: str
    tick: Callable[[float], str]
    series: str
    """What the series are."""


def short_count(value: float) -> str:
    """Return a number of parameters as the axis shows it.

    Example:
        >>> short_count(2_500_000)
        '2.5 M'
    """
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} K"


SIZE = CostAxis("Quality against size", "Parameters", short_count, "Test set")
LATENCY = CostAxis("Quality against latency", "Latency of one sentence, ms", lambda value: f"{value:g}", "Engine")


def draw_quality(figure: "Figure", series: Mapping[str, Sequence[Point]], axis: CostAxis = SIZE) -> None:
    """Draw BLEU against what it costs into an empty figure; see `plot_quality_against_size`."""
    axes = figure.subplots()
    for number, (name, points) in enumerate(series.items()):
        colour, marker = SERIES[number % len(SERIES)]
        spread = [point for point in points if point.deviation is not None]
        axes.errorbar(
            [point.cost for point in spread],
            [point.bleu for point in spread],
            yerr=[point.deviation for point in spread],
            linestyle="none",
            elinewidth=1.5,
            capsize=4,
            color=colour,
        )
        axes.plot(
            [point.cost for point in points],
            [point.bleu for point in points],
            linestyle="none",
            marker=marker,
            markersize=8,
            markeredgecolor="white",
            markeredgewidth=0.8,
            color=colour,
            label=_name(name),
        )
    _dress(axes, series, axis)
    everything = [point for points in series.values() for point in points]
    if len({point.label for point in everything}) <= _MOST_NAMED and len(everything) <= _MOST_POINTS:
        _name_the_points(figure, axes, everything)


def _dress(axes, series: Mapping[str, Sequence[Point]], axis: CostAxis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    sizes = [point.cost for points in series.values() for point in points]
    lows = [point.bleu - (point.deviation or 0) for points in series.values() for point in points]
    highs = [point.bleu + (point.deviation or 0) for points in series.values() for point in points]
    axes.set_xscale("log")
    width = max(sizes) / min(sizes)
    axes.set_xlim(min(sizes) / max(1.4, width**0.08), max(sizes) * max(2.2, width**0.3))  # names stand on the right
    margin = max(0.12 * (max(highs) - min(lows)), 0.5)
    axes.set_ylim(min(lows) - margin, max(highs) + margin)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: axis.tick(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(axis.label)
    axes.set_ylabel("BLEU")
    axes.grid(True, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    title = axis.title
    if len(series) > 1:
        axes.legend(title=axis.series, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        title += f", {plot_text(next(iter(series)))}"
    axes.set_title(title, loc="left")


def _name_the_points(figure, axes, points: Sequence[Point]) -> None:
    """Write each model's label to the right of its highest point, over no other label and no point."""
    from matplotlib.patheffects import withStroke

    def place(point: Point) -> tuple[float, float]:  # in points, from the lower left corner
        x, y = axes.transData.transform((point.cost, point.bleu)) * 72 / figure.dpi
        return x, y

    highest: dict[str, Point] = {}
    for point in points:
        if point.label not in highest or point.bleu > highest[point.label].bleu:
            highest[point.label] = point
    for _ in range(_ROUNDS):
        figure.draw_without_rendering()
        starts = [place(point) for point in highest.values()]
        labels = [
            _Box(x + _LABEL_GAP, x + _LABEL_GAP + 5.5 * len(label), y)
            for (x, y), label in zip(starts, highest, strict=True)
        ]
        markers = [_Box(x - 4, x + 4, y) for x, y in map(place, points)]
        heights = _spread(labels, markers)
        area = axes.bbox.transformed(figure.dpi_scale_trans.inverted())  # in inches
        over = max(heights) + _LABEL_HEIGHT / 2 - 72 * area.y1
        if over <= 0 or over > 72 * area.height:
            break
        low, high = axes.get_ylim()  # names go above the points: make room for them
        axes.set_ylim(low, low + (high - low) * (1 + over / (72 * area.height)))
    for (label, point), (_, y), height in zip(highest.items(), starts, heights, strict=True):
        axes.annotate(
            plot_text(label),
            (point.cost, point.bleu),
            xytext=(_LABEL_GAP, height - y),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color="#333333",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


class _Box(NamedTuple):
    """A label or a marker, in points; all are about equally high."""

    left: float
    right: float
    height: float

    def covers(self, other: "_Box") -> bool:
        """Return whether the two overlap."""
        beside = self.right < other.left or other.right < self.left
        return not beside and abs(self.height - other.height) < _LABEL_HEIGHT - 0.01


def _spread(labels: Sequence[_Box], markers: Sequence[_Box]) -> list[float]:
    """Return heights for the labels, moved up just enough that none covers another or a marker."""
    placed = list(markers)
    heights = {}
    for number in sorted(range(len(labels)), key=lambda number: labels[number].height):
        label = labels[number]
        while blocking := [box for box in placed if label.covers(box)]:
            label = label._replace(height=min(box.height for box in blocking) + _LABEL_HEIGHT)
        placed.append(label)
        heights[number] = label.height
    return [heights[number] for number in range(len(labels))]


def _name(test_set: str) -> str:
    """Return the name of a series for the legend, from which matplotlib leaves out what begins with `_`."""
    return f" {plot_text(test_set)}" if test_set.startswith("_") else plot_text(test_set)
