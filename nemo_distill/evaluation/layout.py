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
"""Further tables of a report: grids with a column per setting, and changes from one model to another.

A layout is a YAML or JSON file; it names rows of the report by their labels, which are text however they look
(`010`, `no`):

    grids:
      No initialisation:               # the title
        columns: [τ = 0.5, τ = 1]
        rows:
          NLL + cos: [null, nll_cos]   # a label per column, null for an empty cell
          KD + NLL: [kd_nll_0.5, kd_nll_1]
    changes:
      Low data:
        rows:
          hybrid, 5 %: [low_data, hybrid]   # the first less the second
"""

import os
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

from nemo_distill.config.reading import read_yaml
from nemo_distill.errors import InputError
from nemo_distill.evaluation.summary import Report
from nemo_distill.evaluation.tables import heading, markdown_table
from nemo_distill.support.quoting import plain_text


@dataclass
class Grid:
    """Scores by row and column, the best of each row, and how far that is from the best of the table."""

    columns: list = field(default_factory=list)
    """Headings."""
    rows: dict[str, list] = field(default_factory=dict)
    """For each column the label of a row of the report, or null."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = [
            f"{where}.columns: got {plain_text(column)!r}; give text or a number"
            for column in self.columns
            if not isinstance(column, str | int | float) or isinstance(column, bool)
        ]
        for name, cells in self.rows.items():
            if len(cells) != len(self.columns):
                faults.append(
                    f"{where}.rows.{name}: got {len(cells)} cells for {len(self.columns)} columns; give one each"
                )
            if not all(cell is None or _is_label(cell) for cell in cells):
                faults.append(
                    f"{where}.rows.{name}: got {plain_text(cells)}; give labels as text, null for an empty cell"
                )
        return faults

    def labels(self) -> list[str]:
        """Return the labels that the table shows."""
        return [str(cell) for cells in self.rows.values() for cell in cells if cell is not None]

    def markdown(self, report: Report, test_set: str) -> str:
        """Return the table for one test set; a model that was not scored on it has an empty cell."""
        scores = {row.label: row.bleu[test_set] for row in report.rows if test_set in row.bleu}
        shown = {
            name: [None if cell is None else scores.get(str(cell)) for cell in cells]
            for name, cells in self.rows.items()
        }
        best = {name: max((cell.mean for cell in cells if cell), default=None) for name, cells in shown.items()}
        highest = max((value for value in best.values() if value is not None), default=0.0)
        lines = []
        for name, cells in shown.items():
            line = [name, *("–" if cell is None else str(cell) for cell in cells)]
            if best[name] is None:
                line += ["–", "–"]
            else:
                line += [f"{best[name]:.1f}", "–" if best[name] == highest else f"{best[name] - highest:+.1f}"]
            lines.append(line)
        return markdown_table(["", *map(str, self.columns), "Max", "max Δ"], lines)


@dataclass
class Changes:
    """What one model has over another, on every test set."""

    rows: dict[str, list] = field(default_factory=dict)
    """Two labels of rows of the report; the table shows the first less the second."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        return [
            f"{where}.rows.{name}: got {plain_text(cells)}; give two labels as text, of which the second is taken off"
            for name, cells in self.rows.items()
            if len(cells) != 2 or not all(map(_is_label, cells))
        ]

    def labels(self) -> list[str]:
        """Return the labels that the table shows."""
        return [str(cell) for cells in self.rows.values() for cell in cells]

    def markdown(self, report: Report) -> str:
        """Return the table; models are compared seed by seed, over the seeds that both have."""
        lines = [
            [name, *(str(report.change(*map(str, cells), test_set) or "–") for test_set in report.test_sets)]
            for name, cells in self.rows.items()
        ]
        return markdown_table(["", *report.test_sets], lines)


@dataclass
class Layout:
    """The further tables of a report, each under its title."""

    grids: dict[str, Grid] = field(default_factory=dict)
    """Scores by setting."""
    changes: dict[str, Changes] = field(default_factory=dict)
    """Differences of scores."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        return []


class _TextLoader(yaml.SafeLoader):
    """All is text but `null`, `~` and an empty value: a label `010` is no 8, and a row `no` is no False."""

    yaml_implicit_resolvers: ClassVar = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Return a mapping whose keys are text."""
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


_TextLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(null|~|)\Z"), ["n", "~", ""])


def read_layout(path: str | os.PathLike) -> Layout:
    """Read a layout.

    Raises:
        InputError: there is no such file, or it has faults; the message lists all of them.
    """
    return read_yaml(Layout, path, "layout", _TextLoader)


def layout_tables(layout: Layout, report: Report) -> list[str]:
    """Return the tables as parts of a Markdown report.

    Raises:
        InputError: a table names a row that the report does not have.
    """
    known = [row.label for row in report.rows]
    parts = []
    for title, table in [*layout.grids.items(), *layout.changes.items()]:
        missing = sorted(set(table.labels()) - set(known))
        if missing:
            shown = plain_text(", ".join(missing))
            raise InputError(
                f"layout, '{plain_text(title)}': there is no row {shown}; the report has {', '.join(known)}"
            )
        if isinstance(table, Grid):
            for test_set in report.test_sets:
                suffix = f", {test_set}" if len(report.test_sets) > 1 else ""
                parts += [heading(title + suffix), table.markdown(report, test_set)]
        else:
            parts += [heading(title), table.markdown(report)]
    if layout.grids:
        parts.append("Max is the best of the row, max Δ that less the best of the table.")
    return parts


def _is_label(value: Any) -> bool:
    return isinstance(value, str)
