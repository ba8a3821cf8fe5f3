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
"""What a page draws: SVG that goes into it, the same bytes for the same numbers."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nemo_distill.evaluation.page.curves import Curves, unit_of_time
from nemo_distill.evaluation.page.tables import Table
from nemo_distill.evaluation.plot import SERIES, CostAxis, Point, draw_quality
from nemo_distill.support.quoting import plot_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_APART = 0.18  # between the marks of two models on one line
_IDENTIFIER = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(?:href="#|url\(#)([^")]*)')
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def svg(draw: Callable[["Figure"], None], name: str, size: tuple[float, float]) -> str:
    """Return a figure as an element `svg`, its text as text.

    Args:
        draw: draws into an empty figure.
        name: of the figure, unlike that of any other on the page: its identifiers follow from it.
        size: in inches.
    """
    from matplotlib import rc_context, rcParamsDefault
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = {**rcParamsDefault, "svg.hashsalt": name, "svg.fonttype": "none", "font.family": ["sans-serif"]}
    with rc_context(settings):  # nobody's settings, nor a session's
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=_NO_METADATA, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    used = set(_REFERENCE.findall(text))
    text = _IDENTIFIER.sub(lambda match: match[0] if match[1] in used else "", text)
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S).strip()


def quality_svg(series: Mapping[str, Sequence[Point]], axis: CostAxis, name: str) -> str:
    """Return quality against what it costs; see `nemo_distill.evaluation.plot.plot_quality_against_size`."""
    return svg(lambda figure: draw_quality(figure, series, axis), name, (6.4, 4.6))


def curves_svg(curves: Curves, spent: Mapping[str, float] | None, name: str) -> str:
    """Return learning curves as a picture: BLEU in validation, a line for each run, a colour for each row.

    Args:
        curves: of `read_curves`.
        spent: against time: seconds of each row before its first step. None: against steps.
        name: see `svg`.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        last = max(each.seconds for runs in curves.values() for run in runs.values() for each in run)
        last += max(spent.values(), default=0.0) if spent else 0.0
        unit, divisor = unit_of_time(last)
        for number, (row, runs) in enumerate(curves.items()):
            colour, marker = SERIES[number % len(SERIES)]
            style = ("-", "--", ":", "-.")[number // len(SERIES) % 4]
            for place, run in enumerate(runs.values()):
                start = 0.0 if spent is None else spent.get(row, 0.0)
                axes.plot(
                    [each.step if spent is None else (start + each.seconds) / divisor for each in run],
                    [each.bleu for each in run],
                    color=colour,
                    linestyle=style,
                    marker=marker,
                    markersize=3,
                    linewidth=1.2,
                    label=f" {plot_text(row)}" if place == 0 else "_",
                )
        axes.set_xlim(left=0)
        axes.set_xlabel("Steps" if spent is None else f"Wall-clock time, {unit}")
        axes.set_ylabel("BLEU in validation")
        axes.grid(True, color="#e4e4e4", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)

    return svg(draw, name, (5.0, 3.4))


def table_svg(table: Table, name: str) -> str:
    """Return a table about a student as a picture: a mark with its interval for each line and model."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        middle = (len(table.columns) - 1) / 2
        for column, label in enumerate(table.columns):
            colour, marker = SERIES[column]
            found = [
                (place + _APART * (column - middle), line.cells[column])
                for place, line in enumerate(table.lines)
                if line.cells[column].value is not None
            ]
            axes.errorbar(
                [place for place, _ in found],
                [cell.value for _, cell in found],
                yerr=[
                    [0 if cell.low is None else max(cell.value - cell.low, 0) for _, cell in found],
                    [0 if cell.high is None else max(cell.high - cell.value, 0) for _, cell in found],
                ],
                linestyle="none",
                marker=marker,
                markersize=5,
                elinewidth=1.2,
                capsize=2,
                color=colour,
                label=f" {plot_text(label)}",
            )
        axes.set_xticks(range(len(table.lines)), [line.name for line in table.lines])
        axes.set_xlabel(table.first)
        axes.set_ylabel(table.unit)
        axes.grid(True, axis="y", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)

    return svg(draw, name, (5.0, 3.2))
