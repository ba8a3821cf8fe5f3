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
"""Runs for each objective, start and temperature: the `grid` of a recipe; see `nemo_distill.jobs.recipe`."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nemo_distill.jobs import allowed
from nemo_distill.jobs.recipe_sections import OF_RUN, Run


@dataclass
class Objective:
    """A row of a grid."""

    label: str = ""
    """In the report."""
    overrides: list = field(default_factory=list)
    """Of the training (configs/distill.yaml), at every temperature and start."""
    cache: str | None = None
    """Name of the cache to train from."""
    tempered: bool = True
    """Whether there is a run for each temperature; else one alone, shown under 1."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        return allowed.override_faults(self.overrides, f"{where}.overrides", fixed=OF_RUN)


@dataclass
class Grid:
    """A run for each objective, start and temperature; in the report one table for each start, with a column for each
    temperature. The run of objective `kd` from start `random` at 2 is called `kd_random_2`.
    """

    temperatures: list = field(default_factory=list)
    """Columns."""
    starts: dict[str, list] = field(default_factory=dict)
    """Tables: how the students start, as overrides by a name of your choice."""
    objectives: dict[str, Objective] = field(default_factory=dict)
    """Rows."""
    seeds: dict[str, list] = field(default_factory=dict)
    """Of single runs by their names; the others have those of the recipe."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = [f"{where}.{key}: is empty" for key in ("temperatures", "starts", "objectives") if not given.get(key)]
        if not all(map(_is_temperature, self.temperatures)) or len(set(self.temperatures)) != len(self.temperatures):
            faults.append(f"{where}.temperatures: got {str(self.temperatures)[:80]}; give different numbers above 0")
        if faults:
            return faults
        for start, overrides in self.starts.items():
            faults += allowed.override_faults(overrides, f"{where}.starts.{start}", fixed=OF_RUN)
        faults += self._name_faults(where)
        unknown = [name for name in self.seeds if name not in self.runs()]
        return faults + [
            f"{where}.seeds.{name}: no such run; the grid has {', '.join(self.runs())}" for name in unknown
        ]

    def run_name(self, name: str, start: str, temperature: float) -> str | None:
        """Return the name of a run; None where the grid has a hole."""
        if self.objectives[name].tempered:
            return f"{name}_{start}_{temperature}"
        return f"{name}_{start}" if temperature == self._untempered_column() else None

    def runs(self) -> dict[str, Run]:
        """Return the runs by name."""
        runs = {}
        for label, name, start, temperature in self._points():
            objective = self.objectives[name]
            overrides = [*objective.overrides, *self.starts[start]]
            if objective.tempered:
                overrides.append(f"model.distillation.objective.word_kd.temperature={temperature}")
            runs[label] = Run(overrides, cache=objective.cache, seeds=self.seeds.get(label))
        return runs

    def tables(self) -> dict[str, Any]:
        """Return the tables of the report, as `nemo_distill.evaluation.layout.Layout.grids`."""
        columns = [f"τ = {temperature}" for temperature in self.temperatures]
        return {
            f"Start: {start}": {
                "columns": columns,
                "rows": {
                    objective.label or name: [self.run_name(name, start, each) for each in self.temperatures]
                    for name, objective in self.objectives.items()
                },
            }
            for start in self.starts
        }

    def _points(self) -> Iterator[tuple[str, str, str, float]]:
        """Yield of each run its name, objective, start and temperature."""
        for start, name, temperature in itertools.product(self.starts, self.objectives, self.temperatures):
            label = self.run_name(name, start, temperature)
            if label is not None:
                yield label, name, start, temperature

    def _name_faults(self, where: str) -> list[str]:
        """Return the faults of runs that are called alike, and of rows that are: one would take the other's place."""
        first: dict[str, tuple[str, str]] = {}
        alike: dict[tuple[str, str], str] = {}  # once, of all temperatures
        for label, name, start, _ in self._points():
            if first.setdefault(label, (name, start)) != (name, start):
                alike.setdefault((name, start), label)
        faults = [
            f"{where}: objective '{name}' from start '{start}' has a run called '{label}', as '{first[label][0]}' "
            f"from '{first[label][1]}' has; give one of the four another name"
            for (name, start), label in alike.items()
        ]
        rows: dict[str, str] = {}
        for name, objective in self.objectives.items():
            row = objective.label or name
            if (other := rows.setdefault(row, name)) != name:
                faults.append(
                    f"{where}.objectives.{name}: its row is called '{row}', as that of '{other}'; give a label"
                )
        return faults

    def _untempered_column(self) -> float:
        return 1 if 1 in self.temperatures else self.temperatures[0]


def _is_temperature(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6 and math.isfinite(value)
