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
"""What a sweep trains and compares: the plan in YAML that `examples/sweep.py` runs.

What a plan may ask for is in `nemo_distill.jobs.allowed`: one that came from elsewhere runs no code of its own, and
writes nowhere but in the sweep's directory.
"""

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_distill.config.layer_map import MAP_NAMES
from nemo_distill.config.reading import name_faults, read_yaml
from nemo_distill.errors import InputError
from nemo_distill.evaluation.layout import Changes
from nemo_distill.jobs import allowed


@dataclass
class Size:
    """A model and how long it is trained."""

    model: str = "tiny_1x1"
    """Name in configs/model."""
    steps: int = 1000
    """Training steps."""
    overrides: list = field(default_factory=list)
    """Overrides of its training, such as model.encoder.num_layers=4."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = [] if self.steps > 0 else [f"{where}.steps: got {self.steps}; give at least 1"]
        faults += allowed.config_faults(self.model, f"{where}.model")
        return faults + allowed.override_faults(self.overrides, f"{where}.overrides")


@dataclass
class Labels:
    """Pseudo-labels of the training text."""

    options: list = field(default_factory=list)
    """Options of `nemo-distill pseudo-label`, such as [--search, greedy], or of `select`, of those in
    `allowed.LABELS`; `{gold}` stands for the translations of the training text."""
    select_from: str | None = None
    """Choose anew among the hypotheses of these pseudo-labels, with `nemo-distill select`, rather than decode."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        known = allowed.LABELS if self.select_from is None else allowed.SELECTION
        return allowed.option_faults(self.options, known, f"{where}.options")


@dataclass
class Cache:
    """What `nemo-distill cache` writes of the teacher's outputs for the training text."""

    options: list = field(default_factory=list)
    """Options of `nemo-distill cache`, such as [--top-k, 32], of those in `allowed.CACHES`."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        return allowed.option_faults(self.options, allowed.CACHES, f"{where}.options")


@dataclass
class Run:
    """One row of the table."""

    overrides: list = field(default_factory=list)
    """Overrides of examples/distill.py, such as distillation=hinton."""
    plain: bool = False
    """Train without a teacher, with examples/train_nmt.py."""
    pseudo: str | None = None
    """Name of the pseudo-labels to train on."""
    cache: str | None = None
    """Name of the cache to train from, with no teacher in memory."""
    start: str | None = None
    """Start from the teacher's weights: which of its layers, such as every_nth; a slimmer student takes their most
    important units. With `plain` the control of all rows of this start: what the start and the labels do alone."""
    seeds: list = field(default_factory=lambda: [1])
    """One training run for each."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = allowed.override_faults(self.overrides, f"{where}.overrides", fixed=("seed",))
        if self.start is not None:
            faults += name_faults(self.start, MAP_NAMES, f"{where}.start")
        return faults + allowed.seed_faults(self.seeds, f"{where}.seeds")


@dataclass
class Objective:
    """A row of a grid."""

    label: str = ""
    """In the report."""
    overrides: list = field(default_factory=list)
    """Of examples/distill.py, at every temperature and start."""
    cache: str | None = None
    """Name of the cache to train from."""
    tempered: bool = True
    """Whether there is a run for each temperature; else one alone, shown under 1."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        return allowed.override_faults(self.overrides, f"{where}.overrides", fixed=("seed",))


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
    """Of single runs by their names; the others have seed 1."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = [f"{where}.{key}: is empty" for key in ("temperatures", "starts", "objectives") if not given.get(key)]
        if not all(map(_is_temperature, self.temperatures)) or len(set(self.temperatures)) != len(self.temperatures):
            faults.append(f"{where}.temperatures: got {str(self.temperatures)[:80]}; give different numbers above 0")
        if faults:
            return faults
        for start, overrides in self.starts.items():
            faults += allowed.override_faults(overrides, f"{where}.starts.{start}", fixed=("seed",))
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
        for start, name, temperature in itertools.product(self.starts, self.objectives, self.temperatures):
            label, objective = self.run_name(name, start, temperature), self.objectives[name]
            if label is not None:
                overrides = [*objective.overrides, *self.starts[start]]
                if objective.tempered:
                    overrides.append(f"model.distillation.objective.word_kd.temperature={temperature}")
                runs[label] = Run(overrides, cache=objective.cache, seeds=self.seeds.get(label, [1]))
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

    def _untempered_column(self) -> float:
        return 1 if 1 in self.temperatures else self.temperatures[0]


@dataclass
class Plan:
    """What a sweep trains and compares."""

    source: str = "de"
    """Source language, the suffix of the files."""
    target: str = "en"
    """Target language."""
    vocab_size: int = 4000
    """Of the tokenizer."""
    validations: int = 5
    """Of each model while it trains."""
    overrides: list = field(default_factory=list)
    """Overrides of every training run, the teacher's too."""
    teacher: Size = field(default_factory=Size)
    """The teacher."""
    student: Size = field(default_factory=Size)
    """All students, and the plain runs."""
    pseudo_labels: dict[str, Labels] = field(default_factory=dict)
    """By a name of your choice."""
    caches: dict[str, Cache] = field(default_factory=dict)
    """By a name of your choice."""
    runs: dict[str, Run] = field(default_factory=dict)
    """By the label of the row."""
    grid: Grid | None = None
    """Further runs."""
    changes: dict[str, Changes] = field(default_factory=dict)
    """Tables of differences in the report by title, see `nemo_distill.evaluation.layout`; each row names two runs."""

    def __post_init__(self) -> None:
        if self.grid is not None:
            self.runs = {**self.runs, **self.grid.runs()}

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = self._own_faults(where)
        faults += [
            f"{where}.runs.{name}.{key}: got '{asked}'; give one of {', '.join(known) or '(none)'}"
            for name, run in self.runs.items()
            for key, asked, known in (("pseudo", run.pseudo, self.pseudo_labels), ("cache", run.cache, self.caches))
            if asked is not None and asked not in known
        ]
        faults += [
            f"{where}.pseudo_labels.{name}.select_from: got '{labels.select_from}'; give other labels that are decoded"
            for name, labels in self.pseudo_labels.items()
            if labels.select_from is not None
            and getattr(self.pseudo_labels.get(labels.select_from), "select_from", "") is not None
        ]
        return faults if self.runs else [f"{where}.runs: is empty; name at least one run"]

    def twin(self, label: str) -> str | None:
        """Return the label of the plain run with the same start as a run; None: there is none, or it is that one."""
        start = self.runs[label].start
        found = next((name for name, run in self.runs.items() if run.plain and run.start == start), None)
        return found if found != label else None

    def _own_faults(self, where: str) -> list[str]:
        """Return the faults of single values."""
        faults = allowed.override_faults(self.overrides, f"{where}.overrides")
        for key in ("source", "target"):
            faults += allowed.language_faults(getattr(self, key), f"{where}.{key}")
        for key in ("pseudo_labels", "caches", "runs"):
            faults += allowed.name_faults(getattr(self, key), f"{where}.{key}: a name")
        for key in ("vocab_size", "validations"):
            value = getattr(self, key)
            faults += [] if value > 0 else [f"{where}.{key}: got {value}; give at least 1"]
        for name, run in self.runs.items():  # those of the grid too
            faults += allowed.seed_faults(run.seeds, f"{where}.runs.{name}.seeds")
        return faults


def layout_of(plan: Plan) -> str:
    """Return the further tables of the report, as JSON (see `nemo_distill.evaluation.layout`)."""
    grids = plan.grid.tables() if plan.grid else {}
    changes = {title: dataclasses.asdict(table) for title, table in plan.changes.items()}
    return json.dumps({"grids": grids, "changes": changes}, indent=1, ensure_ascii=False)


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        InputError: there is no such file, or it has faults; the message lists all of them.
    """
    plan = read_yaml(Plan, path, "plan")
    try:
        layout_of(plan).encode()
    except (ValueError, TypeError) as error:  # half a character, a date
        raise InputError(f"{path}: the names of rows and tables are no text ({str(error)[:200]})") from error
    return plan


def _is_temperature(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6 and math.isfinite(value)
