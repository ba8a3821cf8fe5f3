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
"""Which plain run a run is compared with: the one most like it."""

import re
from typing import Any

from nemo_distill.config.model_widths import DROPOUTS
from nemo_distill.config.reading import inner_section
from nemo_distill.jobs import allowed
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.recipe_sections import Run, shipped

_DROPOUT = re.compile(r"model\.(encoder|decoder)\.\w+_dropout")


class Twins:
    """The plain runs of a recipe, by what other runs have in common with them.

    Args:
        recipe: whose student is the one that is trained, where that was to be found.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._runs = recipe.runs
        self._own = {label: _likeness(recipe, run) for label, run in recipe.runs.items()}
        self._usual = _likeness(recipe, Run(plain=True))

    def of(self, label: str) -> str | None:
        """Return the label of the plain run with the same start as a run; None: there is none, or it is that one."""
        found = self.plain(self._runs[label].start, label)
        return found if found != label else None

    def plain(self, start: str | None = None, like: str | None = None) -> str | None:
        """Return the label of the plain run of a start; None: there is none.

        Args:
            start: of the run.
            like: the label of a run. Of several plain runs it is the one with its layers and widths, of these the one
                with its dropouts, and of these the one that is trained for as long; else as `student` is, else the
                first. None, or the label of a plain run: as `student` is.
        """
        plain = [label for label, run in self._runs.items() if run.plain and run.start == start]
        first = self._usual if like is None or self._runs[like].plain else self._own[like]

        def distance(label: str) -> list[int]:
            parts = zip(self._own[label], first, self._usual, strict=True)
            return [len(mine.items() ^ theirs.items()) for mine, *others in parts for theirs in others]

        return min(plain, key=distance, default=None)


def _likeness(recipe: Recipe, run: Run) -> tuple[dict[str, Any], ...]:
    """Return what a run may have in common with its twin: its shape, its dropouts, how long it is trained."""
    size = recipe.student.of(run)
    sections = [inner_section(shipped("model", name), "encoder") for name in ("base", size.model)]
    if not run.plain:
        sections.append(inner_section(shipped("distillation", run.preset), "model", "encoder"))
    if size.dropout is not None:
        sections.append(dict.fromkeys(DROPOUTS, size.dropout))
    dropouts = {f"model.encoder.{key}": each[key] for each in sections for key in DROPOUTS if key in each}
    given = allowed.values_of(recipe.overrides_of(run))
    dropouts |= {key: value for key, value in given.items() if _DROPOUT.fullmatch(key)}
    return run.shape, dropouts, {"steps": size.steps, "patience": size.patience}
